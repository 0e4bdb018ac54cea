"""The pipeline on real files, with detectors whose every call is counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from realbench.errors import RealBenchError
from realbench.images import read_image
from realbench.scoring import pipeline as module
from realbench.scoring.cache import ScoreCache, open_cache
from realbench.scoring.layout import Layout, choose_layout, core_count, decoding_threads
from realbench.scoring.pipeline import Engine, Outcome, Pipeline
from tests.fakes import FakeDetector

LAYOUT = Layout(forwards=2, threads_per_forward=1, batch_size=4)


def save(path: Path, value: int, size: tuple[int, int] = (8, 8)) -> Path:
    """Write a picture of one color; ``value`` decides the fake detectors' scores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


class Trial:
    """One run of the pipeline, with all that came out of it."""

    def __init__(
        self,
        detectors: Sequence[FakeDetector],
        cache: ScoreCache | None = None,
        *,
        layout: Layout = LAYOUT,
        decoders: int = 3,
        max_pixels: int = 10_000_000,
    ) -> None:
        self.detectors = {one.name: one for one in detectors}
        self.loads = 0
        self.outcomes: dict[int, Outcome] = {}
        self.pipeline = Pipeline(
            {one.name: one.fingerprint for one in detectors},
            self.load,
            cache or open_cache([]),
            decoders=decoders,
            max_pixels=max_pixels,
        )
        self.layout = layout

    def load(self) -> Engine:
        self.loads += 1
        return Engine(self.detectors, self.layout)

    def run(self, paths: Sequence[Path]) -> dict[int, Outcome]:
        def take(index: int, outcome: Outcome) -> None:
            assert index not in self.outcomes, "an outcome came twice"
            assert threading.current_thread() is threading.main_thread()
            self.outcomes[index] = outcome

        self.pipeline.run(paths, take)
        return self.outcomes


@pytest.fixture
def pair() -> list[FakeDetector]:
    return [FakeDetector("a"), FakeDetector("b", "feature", sign=-0.5)]


def threads_of_runs() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("realbench-")]


def test_every_file_gets_the_scores_of_its_own_content(
    tmp_path: Path, pair: list[FakeDetector]
) -> None:
    paths = [save(tmp_path / f"{n}.png", 3 * n + 40) for n in range(23)]
    outcomes = Trial(pair).run(paths)
    assert sorted(outcomes) == list(range(23))
    for index, path in enumerate(paths):
        expected = {one.name: one.expected(read_image(path)) for one in pair}
        assert outcomes[index].logits == pytest.approx(expected)
        assert not outcomes[index].cached
    assert threads_of_runs() == []


def test_batches_fill_across_folders_and_the_last_one_is_short(
    tmp_path: Path, pair: list[FakeDetector]
) -> None:
    paths = [save(tmp_path / f"model{n % 5}" / f"{n}.png", n) for n in range(18)]
    Trial(pair).run(paths)
    for one in pair:
        assert sorted(one.batches) == [2, 4, 4, 4, 4]


def test_an_image_is_read_and_decoded_once_for_all_detectors(
    tmp_path: Path, pair: list[FakeDetector], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(tmp_path / f"{n}.png", n) for n in range(6)]
    calls: Counter[str] = Counter()
    for name in ("decode", "read_bytes_and_hash"):
        monkeypatch.setattr(module, name, _counting(getattr(module, name), name, calls))
    Trial(pair).run(paths)
    assert calls == {"decode": 6, "read_bytes_and_hash": 6}


def _counting(
    function: Callable[..., object], name: str, calls: Counter[str]
) -> Callable[..., object]:
    def counted(*arguments: object, **options: object) -> object:
        calls[name] += 1
        return function(*arguments, **options)

    return counted


def test_copies_are_scored_once(tmp_path: Path) -> None:
    one = FakeDetector("a")
    original = save(tmp_path / "x.png", 99)
    copies = [tmp_path / f"copy{n}.png" for n in range(9)]
    for path in copies:
        path.write_bytes(original.read_bytes())
    outcomes = Trial([one]).run([original, *copies])
    assert one.prepared == sum(one.batches) == 1
    assert {outcome.sha256 for outcome in outcomes.values()} == {outcomes[0].sha256}
    assert len({tuple(outcome.logits.items()) for outcome in outcomes.values()}) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    kinds=st.lists(st.sampled_from(["good", "copy", "bad", "bad copy", "gone"]), max_size=40),
    cached=st.integers(0, 40),
    decoders=st.integers(1, 5),
    batch_size=st.integers(1, 7),
    forwards=st.integers(1, 3),
)
def test_every_file_has_exactly_one_outcome(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    cached: int,
    decoders: int,
    batch_size: int,
    forwards: int,
) -> None:
    folder = tmp_path_factory.mktemp("mix")
    paths = []
    for n, kind in enumerate(kinds):
        path = folder / f"{n}.png"
        if kind == "good":
            save(path, n)
        elif kind == "copy":
            save(path, 200)
        elif kind == "bad":
            path.write_bytes(f"not an image {n}".encode())
        elif kind == "bad copy":
            path.write_bytes(b"")
        paths.append(path)
    layout = Layout(forwards, 1, batch_size)
    one, two = FakeDetector("a"), FakeDetector("b", sign=2.0)
    with open_cache([folder / "cache" / "scores.sqlite"]) as cache:
        Trial([one], cache).run(paths[:cached])
        before = sum(one.batches)
        outcomes = Trial([one, two], cache, layout=layout, decoders=decoders).run(paths)
    assert sorted(outcomes) == list(range(len(kinds)))
    for index, kind in enumerate(kinds):
        if kind in ("good", "copy"):
            value = np.full((1, 1, 3), index if kind == "good" else 200, np.uint8)
            expected = {"a": one.expected(value), "b": two.expected(value)}
            assert outcomes[index].logits == pytest.approx(expected)
            assert outcomes[index].reason == ""
        else:
            assert outcomes[index].logits == {}
            assert outcomes[index].reason
    contents = {200 if kind == "copy" else n for n, kind in enumerate(kinds) if "bad" not in kind}
    contents -= {n for n, kind in enumerate(kinds) if kind == "gone"}
    assert sum(two.batches) == len(contents)
    assert sum(one.batches) == len(contents)  # what the first run scored was not scored again
    assert before <= len(contents)


def test_only_missing_detectors_run(tmp_path: Path, pair: list[FakeDetector]) -> None:
    paths = [save(tmp_path / f"{n}.png", n) for n in range(5)]
    with open_cache([tmp_path / "scores.sqlite"]) as cache:
        Trial(pair[:1], cache).run(paths)
        assert sum(pair[0].batches) == 5
        outcomes = Trial(pair, cache).run(paths)
        assert sum(pair[0].batches) == 5
        assert sum(pair[1].batches) == 5
        assert not any(outcome.cached for outcome in outcomes.values())
        again = Trial(pair, cache)
        assert all(outcome.cached for outcome in again.run(paths).values())
        assert again.loads == 0


def test_two_names_of_one_fingerprint_share_their_scores(tmp_path: Path) -> None:
    one, alias = FakeDetector("a"), FakeDetector("alias")
    alias.fingerprint = one.fingerprint
    paths = [save(tmp_path / "x.png", 9)]
    with open_cache([tmp_path / "scores.sqlite"]) as cache:
        Trial([one, alias], cache).run(paths)
        outcome = Trial([one, alias], cache).run(paths)[0]
    assert outcome.cached
    assert outcome.logits == {"a": one.expected(read_image(paths[0]))} | {
        "alias": one.expected(read_image(paths[0]))
    }


def test_nothing_is_loaded_for_files_that_cannot_be_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    big = save(tmp_path / "big.png", 1, (200, 200))
    trial = Trial([FakeDetector("a")], max_pixels=100)
    outcomes = trial.run([empty, big, tmp_path / "missing.png"])
    assert trial.loads == 0
    assert "0 bytes" in outcomes[0].reason
    assert "--max-pixels" in outcomes[1].reason
    assert "no such file" in outcomes[2].reason
    assert all("\n" not in outcome.reason for outcome in outcomes.values())


def test_no_files_no_outcomes() -> None:
    trial = Trial([FakeDetector("a")])
    assert trial.run([]) == {}
    assert trial.loads == 0


class Broken(FakeDetector):
    """Fails in one of its methods."""

    def __init__(self, error: Exception | float, where: str = "logits") -> None:
        super().__init__("broken")
        self.error = error
        self.where = where

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        if self.where == "prepare":
            assert isinstance(self.error, Exception)
            raise self.error
        return super().prepare(image)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        if isinstance(self.error, Exception):
            raise self.error
        return torch.full((len(batch),), self.error)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Broken(ZeroDivisionError("boom")), "boom"),
        (Broken(ZeroDivisionError("boom"), "prepare"), "boom"),
        (Broken(float("nan")), "broken gives a score that is not a number"),
        (Broken(float("inf")), "not a number"),
        (Broken(RuntimeError("CUDA out of memory. Tried to")), "smaller --batch-size"),
        (Broken(MemoryError()), "smaller --batch-size"),
    ],
)
def test_a_failing_detector_ends_the_run_and_its_threads(
    tmp_path: Path, broken: Broken, message: str
) -> None:
    paths = [save(tmp_path / f"{n}.png", n) for n in range(30)]
    with pytest.raises((RealBenchError, ZeroDivisionError), match=message):
        Trial([broken, FakeDetector("a")]).run(paths)
    assert threads_of_runs() == []


def test_detectors_that_do_not_load_end_the_run_at_the_first_try(tmp_path: Path) -> None:
    trial = Trial([FakeDetector("a")])

    def load() -> Engine:
        trial.loads += 1
        time.sleep(0.1)  # the other threads come and wait
        raise RealBenchError("no such weights")

    trial.pipeline.load = load
    with pytest.raises(RealBenchError, match="no such weights"):
        trial.run([save(tmp_path / f"{n}.png", n) for n in range(30)])
    assert trial.loads == 1
    assert threads_of_runs() == []


class Patient(FakeDetector):
    """Scores nothing before it has prepared a number of images."""

    def __init__(self, name: str, images: int) -> None:
        super().__init__(name)
        self.images = images
        self.complete = threading.Event()

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        prepared = super().prepare(image)
        if self.prepared == self.images:
            self.complete.set()
        return prepared

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        assert self.complete.wait(30)
        return super().logits(batch)


def test_an_interrupted_run_keeps_all_that_was_scored(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", n) for n in range(16)]
    pair = [Patient("a", 16), Patient("b", 16)]
    with open_cache([tmp_path / "scores.sqlite"]) as cache:
        trial = Trial(pair, cache)

        def interrupt(index: int, outcome: Outcome) -> None:
            time.sleep(0.3)  # other batches end meanwhile, and nobody has taken their scores
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trial.pipeline.run(paths, interrupt)
        assert threads_of_runs() == []
        assert max(sum(one.batches) for one in pair) > 8  # more than was taken before
        Trial(pair, cache).run(paths)
    assert [sum(one.batches) for one in pair] == [16, 16]


def test_pixels_in_flight_stay_within_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(20, 20), (50, 20), (30, 30), (60, 60), (10, 10)] * 4
    paths = [save(tmp_path / f"{n}.png", n, size) for n, size in enumerate(sizes)]
    monkeypatch.setattr(module, "_PIXELS_IN_FLIGHT", 2000)
    decode, lock = module.decode, threading.Lock()
    flying: list[int] = []
    seen: list[list[int]] = []

    class Slow(FakeDetector):
        def prepare(self, image: np.ndarray) -> torch.Tensor:
            time.sleep(0.002)
            with lock:
                flying.remove(image.shape[0] * image.shape[1])
            return super().prepare(image)

    def watched(data: bytes, *, max_pixels: int) -> np.ndarray:
        image = decode(data, max_pixels=max_pixels)
        with lock:
            flying.append(image.shape[0] * image.shape[1])
            seen.append(flying.copy())
        return image

    monkeypatch.setattr(module, "decode", watched)
    outcomes = Trial([Slow("a")], decoders=4).run(paths)
    assert len(outcomes) == 20
    assert any(len(now) > 1 for now in seen)  # small ones do fly together
    for now in seen:
        assert sum(now) <= 2000 or now == [3600]  # the larger one is alone


def test_prepared_images_do_not_pile_up_before_a_slow_detector(tmp_path: Path) -> None:
    class Slow(FakeDetector):
        most_waiting = 0

        def logits(self, batch: torch.Tensor) -> torch.Tensor:
            time.sleep(0.01)
            self.most_waiting = max(self.most_waiting, self.prepared - sum(self.batches))
            return super().logits(batch)

    slow, layout, decoders = Slow("a"), Layout(1, 1, 2), 3
    Trial([slow], layout=layout, decoders=decoders).run(
        [save(tmp_path / f"{n}.png", n) for n in range(60)]
    )
    assert sum(slow.batches) == 60
    assert slow.most_waiting <= decoders + layout.batch_size * 3


def test_the_layout_uses_every_core_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert core_count() >= 1
    assert decoding_threads(5) == 5
    for cores in (1, 2, 3, 8, 64):
        monkeypatch.setattr("realbench.scoring.layout.core_count", lambda cores=cores: cores)
        layout = choose_layout("cpu")
        assert layout.forwards * layout.threads_per_forward <= cores
        assert layout.forwards * layout.threads_per_forward > cores / 2
        assert choose_layout("cuda:0").forwards == 1
        assert choose_layout("cpu", 3).images(views=9) == 3
        assert [layout.images(views) for views in (1, 4, 5, 100)] == [8, 2, 1, 1]
        assert choose_layout("cuda").images(views=4) == 64
        assert 1 <= decoding_threads() <= 16
