"""Speed and memory of Detector-Scoring, as ratios within one run (machines are noisy).

    python benchmarks/score.py                       # images of its own, 1024 px JPEG
    python benchmarks/score.py --images DIR -n 100
    git worktree add /tmp/before COMMIT
    python benchmarks/score.py --against /tmp/before/detectors/semantic-lite \
        --against /tmp/before/detectors/trace-lite

Images per second of ways to score the same files with the same detectors, each in a process
of its own, one after the other in every round:

- *pipeline*: from files to scores, as ``realbench score`` does it;
- *bare forward passes*: the same batches on the same threads, on tensors prepared beforehand;
- *plain loop*: open, prepare, score, one image at a time, with torch's own threads;
- *plain loop, kept memory*: the same with the allocator settings of ``realbench score``;
- *other detectors*: the pipeline with those of ``--against``, such as an earlier commit's pair.

Detectors are loaded before the clock starts. Then the peak memory of ``realbench score`` on few
and on many images, and the time of a second run on unchanged images.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

    from realbench.detection.detector import Detector
    from realbench.scoring.layout import Layout

MODES = ("pipeline", "bare forward passes", "plain loop", "plain loop, kept memory")
AGAINST = "other detectors"
AIMS = {"bare forward passes": 0.85, "plain loop": 2.0}
REALBENCH = [sys.executable, "-c", "from realbench.cli import main; main()"]


# --- Images ------------------------------------------------------------------------------------


def make_images(folder: Path, count: int, size: int) -> None:
    """Write ``count`` different JPEGs of rendered scenes with grain."""
    from realbench.rendering import mountains, spheres

    folder.mkdir(parents=True, exist_ok=True)
    scenes = [draw(size, seed) for draw in (mountains, spheres) for seed in range(4)]
    rng = np.random.default_rng(0)
    for n in range(count):
        grain = rng.normal(0, 6, (size, size, 1)).astype(np.float32)
        pixels = np.clip(scenes[n % len(scenes)] + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:05}.jpg", quality=92)


def multiply(source: Path, target: Path, count: int) -> None:
    """Fill ``target`` with ``count`` files; what follows the end of a JPEG makes each its own."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for n in range(count):
        path = files[n % len(files)]
        (target / f"{n:05}{path.suffix}").write_bytes(path.read_bytes() + n.to_bytes(4, "big"))


# --- The ways, each in its own process -----------------------------------------------------


def way(mode: str, paths: Sequence[Path], against: Sequence[str]) -> Callable[[], object]:
    """Return a function that scores ``paths`` once, in the way ``mode``."""
    import realbench
    from realbench.detection.detector import keep_freed_memory
    from realbench.detection.registry import EMBEDDED_DETECTORS
    from realbench.scoring.layout import choose_layout, decoding_threads
    from realbench.scoring.pipeline import Engine, Pipeline

    if mode != "plain loop":
        keep_freed_memory()
    chosen = against if mode == AGAINST else EMBEDDED_DETECTORS
    detectors = {name: realbench.load_detector(name) for name in chosen}
    layout = choose_layout("cpu")

    def pipeline() -> None:
        from realbench.images import DEFAULT_MAX_PIXELS
        from realbench.scoring.cache import open_cache

        Pipeline(
            {name: one.fingerprint for name, one in detectors.items()},
            lambda: Engine(detectors, layout),
            open_cache([]),
            decoders=decoding_threads(),
            max_pixels=DEFAULT_MAX_PIXELS,
        ).run(paths, lambda index, outcome: None)

    def plain() -> None:
        for path in paths:
            with Image.open(path) as file:
                image = np.array(file.convert("RGB"))
            for detector in detectors.values():
                detector.logits(detector.prepare(image)[None])

    if mode in ("pipeline", AGAINST):
        return pipeline
    if mode == "bare forward passes":
        return bare(list(detectors.values()), layout, paths)
    return plain


def bare(
    detectors: Sequence[Detector], layout: Layout, paths: Sequence[Path]
) -> Callable[[], object]:
    """Return a function that runs the pipeline's batches, prepared here, on its threads."""
    import torch

    from realbench.images import read_image
    from realbench.scoring.layout import use_threads

    images = [read_image(path) for path in paths]
    batches: list[tuple[Detector, torch.Tensor]] = []
    for one in detectors:
        tensors = [one.prepare(image) for image in images]
        size = layout.images(len(tensors[0]))
        parts = [torch.stack(tensors[start : start + size]) for start in range(0, len(paths), size)]
        batches += [(one, part) for part in parts]

    def forward() -> None:
        with ThreadPoolExecutor(
            layout.forwards, initializer=use_threads, initargs=(layout.threads_per_forward,)
        ) as pool:
            list(pool.map(lambda batch: batch[0].logits(batch[1]), batches))

    return forward


def work(mode: str, folder: Path, count: int, against: Sequence[str]) -> None:
    """Score once for every line that comes in, and print the seconds that it took."""
    from realbench.images import find_images

    action = way(mode, [file.path for file in find_images(folder)][:count], against)
    action()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        action()
        print(time.perf_counter() - start, flush=True)


@contextmanager
def worker(
    mode: str, folder: Path, count: int, against: Sequence[str]
) -> Iterator[Callable[[], float]]:
    """Start a process for ``mode``; yields a function that has it score once, in seconds."""
    command = [sys.executable, __file__, "--work", mode, "--images", str(folder), "-n", str(count)]
    command += [part for one in against for part in ("--against", one)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    lines, orders = process.stdout, process.stdin

    def answer() -> str:
        line = lines.readline()
        if not line:
            raise SystemExit(f"the process of {mode!r} ended")
        return line

    def score() -> float:
        print("go", file=orders, flush=True)
        return float(answer())

    try:
        answer()
        yield score
    finally:
        orders.close()
        process.wait()


def compare(folder: Path, count: int, rounds: int, against: Sequence[str]) -> None:
    """Print images/s of the ways and the pipeline's ratio to the others."""
    modes = (*MODES, AGAINST) if against else MODES
    times: dict[str, list[float]] = {mode: [] for mode in modes}
    with ExitStack() as stack:
        workers = {m: stack.enter_context(worker(m, folder, count, against)) for m in modes}
        for _ in range(rounds):
            for mode, score in workers.items():
                times[mode].append(score())
    print(f"{count} images, {rounds} rounds, {os.cpu_count()} cores; medians (least to most)")
    for mode, values in times.items():
        print(f"  {mode:24} {spread([count / value for value in values], 1)} images/s")
    for mode in modes[1:]:
        pairs = zip(times[mode], times["pipeline"], strict=True)
        aim = f", aim {AIMS[mode]}" if mode in AIMS else ""
        print(f"  pipeline / {mode}: {spread([other / ours for other, ours in pairs], 2)}{aim}")


def spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


# --- Memory and the cache -----------------------------------------------------------------------


def memory(folder: Path, counts: Sequence[int]) -> None:
    """Print the peak resident memory of ``realbench score`` on each number of images."""
    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            multiply(folder, Path(place), count)
            start = time.perf_counter()
            process = subprocess.Popen([*REALBENCH, "score", place, "--no-cache", "--quiet"])
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit("realbench score failed")
        seconds = time.perf_counter() - start
        print(f"  {count:5} images: peak memory {usage.ru_maxrss / 1024:.0f} MiB, {seconds:.1f} s")


def cached(folder: Path) -> None:
    """Print the time of a second run on unchanged images beside that of starting."""
    with tempfile.TemporaryDirectory() as place:
        environment = os.environ | {"REALBENCH_CACHE": place}
        time.sleep(2.1)  # files this young are not remembered by their time

        def seconds(*arguments: str, repeat: int = 1) -> float:
            times = []
            for _ in range(repeat):
                start = time.perf_counter()
                subprocess.run(
                    [*REALBENCH, *arguments],
                    env=environment,
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                times.append(time.perf_counter() - start)
            return statistics.median(times)

        score = ("score", str(folder))
        written = (*score, "--out", str(Path(place) / "run"))
        print(
            f"  first run {seconds(*score):.1f} s; again {seconds(*score, repeat=5):.2f} s, "
            f"with --out {seconds(*written, repeat=3):.2f} s; "
            f"--help {seconds('--help', repeat=5):.2f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=Path, help="a folder of images instead of made ones")
    parser.add_argument("-n", type=int, default=96, help="images in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=1024, help="side of the made images")
    parser.add_argument("--memory", type=int, nargs="*", default=[200, 2000], metavar="COUNT")
    parser.add_argument("--work", choices=(*MODES, AGAINST), help=argparse.SUPPRESS)
    parser.add_argument(
        "--against", action="append", default=[], help="a card's folder; may be repeated"
    )
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.images, arguments.n, arguments.against)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        if arguments.images:
            shutil.copytree(arguments.images, folder)
        else:
            make_images(folder, arguments.n, arguments.size)
        compare(folder, arguments.n, arguments.rounds, arguments.against)
        memory(folder, arguments.memory)
        cached(folder)


if __name__ == "__main__":
    main()
