"""Speed and memory of Detector-Scoring, as ratios within one run (machines are noisy).

    python benchmarks/score.py                      # images of its own, 1024 px JPEG
    python benchmarks/score.py --images DIR -n 100

Prints images/s of the pipeline, of the bare forward passes on prepared tensors and of a plain
loop (open, transform, score, one image at a time, the same detectors), interleaved over several
rounds; then the peak memory of runs of 200 and 2,000 images, and the time of a cached run.
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image


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


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(folder: Path, count: int, rounds: int) -> None:
    import torch

    import realbench
    from realbench.images import find_images, read_image
    from realbench.scoring.layout import choose_layout, use_threads

    paths = [file.path for file in find_images(folder)][:count]
    chosen = folder.parent / "chosen"
    chosen.mkdir()
    for path in paths:
        os.link(path, chosen / path.name)
    names = realbench.list_detectors()
    detectors = [realbench.load_detector(name) for name in names]
    layout = choose_layout("cpu")
    prepared = [[d.prepare(read_image(path)) for path in paths] for d in detectors]
    starts = range(0, len(paths), layout.batch_size)
    batches = [
        (detector, torch.stack(tensors[start : start + layout.batch_size]))
        for detector, tensors in zip(detectors, prepared, strict=True)
        for start in starts
    ]

    def pipeline() -> None:
        realbench.score(chosen, cache=False)

    def forward() -> None:
        with ThreadPoolExecutor(
            layout.forwards, initializer=use_threads, initargs=(layout.threads_per_forward,)
        ) as pool:
            list(pool.map(lambda batch: batch[0].logits(batch[1]), batches))

    def plain() -> None:
        for path in paths:
            with Image.open(path) as file:
                image = np.array(file.convert("RGB"))
            for detector in detectors:
                detector.logits(detector.prepare(image)[None])

    actions = {"pipeline": pipeline, "bare forward passes": forward, "plain loop": plain}
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(timed(action))
    print(f"{len(paths)} images, {rounds} rounds, {', '.join(names)}, {layout}")
    for name, values in times.items():
        print(f"  {name:20} {len(paths) / statistics.median(values):7.1f} images/s (median)")
    for other, aim in (("bare forward passes", 0.85), ("plain loop", 2.0)):
        pairs = zip(times[other], times["pipeline"], strict=True)
        ratios = sorted(b / a for b, a in pairs)
        middle = statistics.median(ratios)
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"  pipeline / {other}: {middle:.2f} ({spread}; aim {aim})")


MEASURE = """
import resource, sys, realbench
realbench.score(sys.argv[1], cache=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def memory(folder: Path, counts: Sequence[int]) -> None:
    """Print the peak memory of whole processes; the images are links to a few real files."""
    files = sorted(folder.iterdir())
    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            for n in range(count):
                # Bytes after a JPEG's end make each a content of its own, decoded and scored.
                data = files[n % len(files)].read_bytes() + n.to_bytes(4, "big")
                (Path(place) / f"{n:05}.jpg").write_bytes(data)
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, place], capture_output=True, text=True, check=True
            )
        print(f"  peak memory at {count:5} images: {done.stdout.strip()} MiB")


def cached(folder: Path) -> None:
    """Print the time of a second run on unchanged images beside that of ``--version``."""
    with tempfile.TemporaryDirectory() as place:
        environment = os.environ | {"REALBENCH_CACHE": place}
        base = [sys.executable, "-c", "from realbench.cli import main; main()"]
        score = [*base, "score", str(folder), "--quiet"]
        time.sleep(2.1)  # files this young are not remembered by their time

        def run(command: list[str]) -> float:
            return timed(lambda: subprocess.run(command, env=environment, check=True))

        first, second, third = run(score), run(score), run(score)
        help_ = run([*base, "--version"])
    print(f"  first run {first:.1f} s, again {min(second, third):.1f} s, --version {help_:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=Path, help="a folder of images instead of made ones")
    parser.add_argument("-n", type=int, default=64, help="images in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--memory", type=int, nargs="*", default=[200, 2000], metavar="COUNT")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        if arguments.images:
            shutil.copytree(arguments.images, folder)
        else:
            make_images(folder, arguments.n, arguments.size)
        compare(folder, arguments.n, arguments.rounds)
        memory(folder, arguments.memory)
        cached(folder)


if __name__ == "__main__":
    main()
