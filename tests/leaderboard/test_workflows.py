"""The workflows: what a stranger's request may reach, and that they run the tested script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

FOLDER = Path(__file__).resolve().parents[2] / ".github" / "workflows"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs a checkout")


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def steps(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_a_request_is_reviewed_without_rights_and_by_the_bases_code() -> None:
    workflow = load("leaderboard.yml")
    assert set(workflow[True]) == {"pull_request", "push"}  # YAML reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    review = workflow["jobs"]["review"]
    assert "permissions" not in review
    checkout = review["steps"][0]["with"]
    assert checkout["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert checkout["persist-credentials"] is False
    assert not any("git checkout" in one or "git merge" in one for one in steps(review))
    assert sum(".ci/leaderboard review" in one for one in steps(review)) == 1


def test_the_comment_is_written_by_mains_code_from_data() -> None:
    workflow = load("leaderboard-comment.yml")
    job = workflow["jobs"]["comment"]
    assert set(workflow[True]) == {"workflow_run"}
    assert job["steps"][0]["with"]["ref"] == "main"
    assert workflow["permissions"] == {
        "actions": "read", "contents": "read", "pull-requests": "write"
    }  # fmt: skip
    assert sum(".ci/leaderboard comment" in one for one in steps(job)) == 1


@pytest.mark.parametrize("name", ["leaderboard.yml", "leaderboard-comment.yml"])
def test_no_text_of_a_request_gets_into_a_command(name: str) -> None:
    for job in load(name)["jobs"].values():
        for command in steps(job):
            assert "${{" not in command


def test_tables_are_published_from_main_alone() -> None:
    workflow = load("leaderboard.yml")
    assert workflow[True]["push"]["branches"] == ["main"]
    publish = workflow["jobs"]["publish"]
    assert publish["if"] == "github.event_name == 'push'"
    assert publish["concurrency"]
    assert any(re.search(r"\.ci/leaderboard publish", one) for one in steps(publish))
