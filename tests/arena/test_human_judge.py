"""The human judge without a browser: what its answers mean, and how it begins and ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest

from realbench.arena.judges import JudgeOptions, make_judge
from realbench.arena.judges.human import HumanJudge
from realbench.arena.judges.judge import Judge, Judgment, Picture, Showing
from realbench.errors import UsageError
from realbench.images import read_bytes_and_hash
from tests.cli.commands import error_line, realbench
from tests.conftest import FolderMaker

ShowingsMaker = Callable[[int], list[Showing]]


@pytest.fixture
def make_showings(make_folder: FolderMaker) -> ShowingsMaker:
    def make(count: int) -> list[Showing]:
        one, two = make_folder("one", count), make_folder("two", count, format="tiff")

        def picture(path: Path) -> Picture:
            return Picture(path.parent.name, path, read_bytes_and_hash(path)[1])

        return [
            Showing(f"{n:04d}", None, picture(one / f"{n:04d}.jpg"), picture(two / f"{n:04d}.tiff"))
            for n in range(count)
        ]

    return make


class Person:
    """Answers at the page's interface, as the page does."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=20)

    def __call__(self, what: str, **body: Any) -> httpx.Response:
        return self.client.post(what, json=body)

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.client.get("state").json())

    def vote(self, choice: str) -> httpx.Response:
        return self("vote", pair=self.state["pairs"][0]["id"], choice=choice)


def judge_with(announce: Callable[[str], object]) -> HumanJudge:
    return HumanJudge(JudgeOptions(open_browser=False), announce=announce)


Answers = list[tuple[Showing, Judgment | None]]


def answers_to(showings: list[Showing], act: Callable[[Person], None]) -> Answers:
    """Let a person act on the page; return what the judge yields meanwhile."""

    def act_and_finish(url: str) -> None:
        person = Person(url)
        try:
            act(person)
        finally:
            person("finish")

    with ThreadPoolExecutor(1) as pool:
        acts: list[Any] = []
        judge = judge_with(lambda url: acts.append(pool.submit(act_and_finish, url)))
        answers = list(judge.judge(showings))
        for one in acts:
            one.result(20)
    return answers


def test_it_is_a_judge_of_one_order(make_showings: ShowingsMaker) -> None:
    judge = make_judge("human")
    assert isinstance(judge, Judge)
    assert (judge.name, judge.orders, judge.is_vlm) == ("human", 1, False)
    assert judge.fingerprint == HumanJudge(JudgeOptions(port=1)).fingerprint
    assert "photograph" in judge.describe()["question"]


def test_left_is_first_and_undo_takes_back_the_showing(make_showings: ShowingsMaker) -> None:
    showings = make_showings(4)

    def act(person: Person) -> None:
        for choice in ("left", "right", "tie"):
            assert person.vote(choice).status_code == 200
        assert person("undo").status_code == 200
        assert person.vote("left").status_code == 200

    answers = answers_to(showings, act)
    verdicts = [judgment.verdict if judgment else None for _, judgment in answers]
    assert verdicts == ["first", "second", "tie", None, "first"]
    assert [showings.index(showing) for showing, _ in answers] == [0, 1, 2, 2, 2]


def test_few_showings_are_pulled_ahead(make_showings: ShowingsMaker) -> None:
    showings = make_showings(10)
    pulled: list[int] = []

    def pull() -> Any:
        for number, showing in enumerate(showings):
            pulled.append(number)
            yield showing

    counts = []

    def act(person: Person) -> None:
        for _ in range(5):
            counts.append(len(pulled))
            person.vote("tie")
        person("finish")

    with ThreadPoolExecutor(1) as pool:
        judge = judge_with(lambda url: pool.submit(act, Person(url)))
        assert len(list(judge.judge(pull()))) == 5
    assert counts[0] == 3
    assert all(b - a in (0, 1, 2) for a, b in pairwise(counts))
    assert len(pulled) <= 5 + 3


def test_the_caller_writes_before_the_page_is_told(make_showings: ShowingsMaker) -> None:
    addresses: SimpleQueue[str] = SimpleQueue()
    answers = judge_with(addresses.put).judge(make_showings(3))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(next, answers)
        person = Person(addresses.get(timeout=20))
        told = pool.submit(person.vote, "left")
        first.result(20)
        with pytest.raises(TimeoutError):
            told.result(0.3)
        second = pool.submit(next, answers)
        assert told.result(20).status_code == 200
        unsaved = pool.submit(person.vote, "left")
        second.result(20)
        answers.close()  # as when the disk is full: what was yielded last may not be written
        assert unsaved.result(20).status_code == 503
    with pytest.raises(httpx.TransportError):
        _ = person.state


def test_a_picture_that_changed_or_went_is_not_shown(make_showings: ShowingsMaker) -> None:
    showings = make_showings(4)
    showings[0].second.path.write_bytes(showings[0].first.path.read_bytes())
    showings[2].first.path.unlink()

    def act(person: Person) -> None:
        while person.state["phase"] == "voting":
            assert person.state["total"] == 2
            person.vote("left")

    answers = answers_to(showings, act)
    said = {showings.index(showing): judgment for showing, judgment in answers}
    assert {n: judgment.verdict for n, judgment in said.items() if judgment} == {
        0: "invalid",
        1: "first",
        2: "invalid",
        3: "first",
    }
    assert said[0] is not None
    assert said[0].raw == "changed since the run began"


def test_without_showings_there_is_no_page() -> None:
    addresses: list[str] = []
    assert list(judge_with(addresses.append).judge([])) == []
    assert addresses == []


def test_a_port_in_use_is_said_before_anything_is_shown(make_showings: ShowingsMaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        judge = HumanJudge(JudgeOptions(port=port, open_browser=False))
        with pytest.raises(UsageError, match=f"port {port} is in use"):
            next(iter(judge.judge(make_showings(1))))


@pytest.mark.slow
def test_the_command_says_what_is_wrong_in_one_line(
    make_folder: FolderMaker, tmp_path: Path
) -> None:
    environment = os.environ | {"REALBENCH_CACHE": str(tmp_path / "cache")}
    arguments = ("arena", make_folder("one"), make_folder("two"), "--judge", "human")
    lost = realbench(*arguments, environment=environment, code=2)
    assert "needs --out" in error_line(lost)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = realbench(
            *arguments,
            *("--out", tmp_path / "run", "--port", port, "--no-browser"),
            environment=environment,
            code=2,
        )
    assert f"port {port} is in use" in error_line(taken)


def test_raters_are_told_apart_by_name() -> None:
    assert make_judge("human").name == "human"
    assert make_judge("human:ana").name == "human:ana"
    assert make_judge("human:ana").fingerprint == make_judge("human").fingerprint
    with pytest.raises(UsageError, match="no judge"):
        make_judge("human:")
