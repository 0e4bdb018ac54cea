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


def test_the_comments_verdict_is_computed_by_mains_code_from_the_requests_objects() -> None:
    workflow = load("leaderboard-comment.yml")
    job = workflow["jobs"]["comment"]
    assert set(workflow[True]) == {"workflow_run"}
    assert job["steps"][0]["with"]["ref"] == "main"
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    text = (FOLDER / "leaderboard-comment.yml").read_text()
    assert "gh run download" not in text
    assert "download-artifact" not in text
    (computed,) = [one for one in steps(job) if ".ci/leaderboard comment" in one]
    assert '.ci/leaderboard review HEAD "$HEAD_SHA"' in computed
    assert "by the code of main" in computed
    assert not any("checkout" in one for one in steps(job))


@pytest.mark.parametrize("name", ["ci.yml", "leaderboard.yml", "leaderboard-comment.yml"])
def test_actions_are_pinned_by_commit_and_leave_no_credentials(name: str) -> None:
    for job in load(name)["jobs"].values():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_what_installs_has_no_credentials_and_knows_every_file() -> None:
    jobs = [
        *load("leaderboard.yml")["jobs"].values(),
        *load("leaderboard-comment.yml")["jobs"].values(),
    ]
    installing = [
        (job, step)
        for job in jobs
        for step in job["steps"]
        if "pip install" in step.get("run", "") or step.get("run") == ".ci/leaderboard install"
    ]
    assert len(installing) == 3
    for job, step in installing:
        assert step == {"run": ".ci/leaderboard install"}
        assert "GH_TOKEN" not in job.get("env", {})
        assert "id-token" not in job.get("permissions", {})
    script = (FOLDER.parents[1] / ".ci" / "leaderboard").read_text()
    assert "--require-hashes" in script
    assert "index-url" not in script + (FOLDER / "leaderboard.yml").read_text()


@pytest.mark.parametrize("name", ["constraints.txt", "leaderboard.txt"])
def test_every_locked_package_has_a_version_and_digests(name: str) -> None:
    locked = (FOLDER.parents[1] / ".ci" / name).read_text()
    packages = re.split(r"\n(?=\S)", re.sub(r"(?m)^#.*\n", "", locked).strip())
    assert len(packages) > 20
    for package in packages:
        assert re.match(r"[a-z0-9-]+==[\w.+]+ ", package)
        assert "--hash=sha256:" in package


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
