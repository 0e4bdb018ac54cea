"""Speed of ViT-L-class detectors, as ratios within one run (machines are noisy).

    python benchmarks/detection.py                     # univfd and effort, on what is here
    python benchmarks/detection.py --detector univfd -n 8 --rounds 3

Weights are random, of the published shapes; images are made, 1024 px JPEG. Ways to score the same
files, each in a process of its own, one after the other in every round:

- *plain loop*: as papers' scripts do it: open one image, torchvision's transforms, one forward
  pass in float32, ``.item()``, the next image;
- *pipeline*: from files to scores as ``realbench score`` does it, float32;
- *pipeline, bfloat16*: with ``--precision bfloat16``, where the processor does not imitate it;
- on a GPU also *pipeline, bfloat16, compiled*: with ``torch.compile``.

Beside images a second stands the processor time an image (a shared machine disturbs it less), on
a CPU. Then what several detectors of one backbone save by sharing their preprocessing, and the
share of the measured matrix-product ceiling that a pass reaches; on a GPU also the batches found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from plain_loop import plain_loop, write_weights  # benchmarks/plain_loop.py
from score import make_images, spread  # benchmarks/score.py

if TYPE_CHECKING:
    from realbench.detection.detector import Detector

DETECTORS = ("univfd", "effort")
PLAIN = "plain loop"
AIMS = {"cpu": 1.3, "cuda": 5.0}


def modes(device: str) -> list[str]:
    """Return the ways that are compared on ``device``."""
    from realbench.detection.families.views import has_bfloat16

    reduced = ["pipeline, bfloat16"] if has_bfloat16(device) else []
    compiled = ["pipeline, bfloat16, compiled"] if device == "cuda" else []
    return [PLAIN, "pipeline", *reduced, *compiled]


# --- Ours ----------------------------------------------------------------------------------------


def loaded(detector: str, weights: Mapping[str, str], device: str, mode: str) -> Detector:
    from realbench.detection.registry import find_card, load_detector

    precision = "bfloat16" if "bfloat16" in mode else "float32"
    card = find_card(detector).with_weights(weights).with_precision(precision)  # type: ignore[arg-type]
    one = load_detector(card, device)
    if "compiled" in mode:
        one.network = torch.compile(one.network)  # type: ignore[attr-defined]
    return one


def pipeline(
    detector: str, weights: Mapping[str, str], device: str, mode: str, paths: Sequence[Path]
) -> Callable[[], list[float]]:
    from realbench.detection.detector import keep_freed_memory
    from realbench.detection.ensemble import probability
    from realbench.images import DEFAULT_MAX_PIXELS
    from realbench.scoring.cache import open_cache
    from realbench.scoring.layout import choose_layout, decoding_threads, find_batch_sizes
    from realbench.scoring.pipeline import Engine, Outcome, Pipeline

    keep_freed_memory()
    one = loaded(detector, weights, device, mode)
    sizes = find_batch_sizes({detector: one}, device, most=len(paths))
    if sizes:
        print(json.dumps({"batch": sizes[detector]}), file=sys.stderr, flush=True)
    engine = Engine({detector: one}, choose_layout(device), sizes)

    def score() -> list[float]:
        logits: dict[int, float] = {}

        def take(index: int, outcome: Outcome) -> None:
            logits[index] = outcome.logits[detector]

        Pipeline(
            {detector: one.fingerprint},
            lambda: engine,
            open_cache([]),
            decoders=decoding_threads(),
            max_pixels=DEFAULT_MAX_PIXELS,
        ).run(paths, take)
        return probability(np.array([logits[n] for n in range(len(paths))])).tolist()

    return score


# --- Processes -----------------------------------------------------------------------------------


def work(order: Mapping[str, Any]) -> None:
    """Score once for every line that comes in; print seconds, processor seconds and scores."""
    paths = sorted(Path(order["images"]).iterdir())
    arguments = (order["detector"], order["weights"], order["device"])
    mode = order["mode"]
    action = plain_loop(*arguments, paths) if mode == PLAIN else pipeline(*arguments, mode, paths)
    if order["device"] != "cpu":
        action()  # kernels are chosen, and compiled, for these very batches
    print("ready", flush=True)
    for _ in sys.stdin:
        start, own = time.perf_counter(), time.process_time()
        scores = action()
        took = {"wall": time.perf_counter() - start, "cpu": time.process_time() - own}
        print(json.dumps(took | {"scores": scores}), flush=True)


@contextmanager
def worker(order: Mapping[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start a process for one way; yields a function that has it score once."""
    command = [sys.executable, __file__, "--work", json.dumps(order)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    lines, orders = process.stdout, process.stdin

    def answer() -> str:
        line = lines.readline()
        if not line:
            raise SystemExit(f"the process of {order['mode']!r} ended")
        return line

    def score() -> dict[str, Any]:
        print("go", file=orders, flush=True)
        found: dict[str, Any] = json.loads(answer())
        return found

    try:
        answer()
        yield score
    finally:
        orders.close()
        process.wait()


def compare(detector: str, device: str, images: Path, rounds: int) -> None:
    """Print images/s of the ways, and their ratios to the plain loop."""
    count = len(list(images.iterdir()))
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        base = {
            "detector": detector,
            "weights": write_weights(detector, Path(place)),
            "device": device,
            "images": str(images),
        }
        workers = {
            mode: stack.enter_context(worker(base | {"mode": mode})) for mode in modes(device)
        }
        found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in workers}
        for _ in range(rounds):
            for mode, score in workers.items():
                found[mode].append(score())
                print(f"  {mode}: {count / found[mode][-1]['wall']:.2f} images/s", file=sys.stderr)
    print(f"{detector} on {device}: {count} images, {rounds} rounds; medians (least to most)")
    plain = found[PLAIN]
    reference = np.array(plain[0]["scores"])
    for mode, runs in found.items():
        speed = spread([count / one["wall"] for one in runs], 2)
        cost = spread([one["cpu"] / count for one in runs], 2)
        print(f"  {mode:28} {speed} images/s; processor {cost} s an image")
        if mode != PLAIN:
            ratio = spread([a["wall"] / b["wall"] for a, b in zip(plain, runs, strict=True)], 2)
            cpu = spread([a["cpu"] / b["cpu"] for a, b in zip(plain, runs, strict=True)], 2)
            apart = np.abs(np.array(runs[0]["scores"]) - reference).max()
            print(
                f"  {'':28} / {PLAIN}: {ratio}, aim {AIMS[device]}; in processor time {cpu}; "
                f"P(real) differs by {apart:.1e} at most"
            )


# --- Shared preprocessing ------------------------------------------------------------------------


class Same:
    """A detector's preparation under a name of its own, so that it is not shared."""

    def __init__(self, spec: Any) -> None:
        from realbench.detection.families.published import view

        self.prepare = lambda image: torch.from_numpy(view(image, spec))
        self.preparation: object = None


def sharing(images: Path, heads: int, rounds: int) -> None:
    """Print what ``heads`` detectors of one backbone save by sharing their preprocessing."""
    from realbench.detection.detector import prepare_for
    from realbench.detection.registry import find_card
    from realbench.images import read_image

    pictures = [read_image(path) for path in sorted(images.iterdir())]
    spec = find_card("clip-zeroshot").input
    alone = {f"{n}": Same(spec) for n in range(heads)}
    shared = {f"{n}": Same(spec) for n in range(heads)}
    for one in shared.values():
        one.preparation = "clip"

    def seconds(detectors: Mapping[str, Any]) -> float:
        start = time.process_time()
        for picture in pictures:
            prepare_for(detectors, detectors, picture)
        return (time.process_time() - start) / len(pictures)

    times = [(seconds(alone), seconds(shared)) for _ in range(rounds)]
    print(
        f"preprocessing of one image for {heads} detectors of one backbone (short side to 224): "
        f"{spread([1000 * a for a, _ in times], 1)} ms each for itself, "
        f"{spread([1000 * b for _, b in times], 1)} ms shared; "
        f"ratio {spread([a / b for a, b in times], 2)}"
    )


# --- The machine's ceiling -----------------------------------------------------------------------


def ceiling(detector: str, device: str) -> None:
    """Print which share of the measured matrix-product ceiling forward passes reach.

    The ceiling is the best that a product of square matrices reaches here: in bfloat16 on a GPU,
    in float32 on a CPU.
    """
    from realbench.scoring.layout import find_batch_sizes

    on_gpu = device == "cuda"
    side, dtype = (8192, torch.bfloat16) if on_gpu else (2048, torch.float32)
    a = torch.randn(side, side, device=device, dtype=dtype)
    with tempfile.TemporaryDirectory() as place:
        weights = write_weights(detector, Path(place))
        for mode in modes(device)[2 if on_gpu else 1 :]:
            one = loaded(detector, weights, device, mode)
            size = find_batch_sizes({detector: one}, device)[detector] if on_gpu else 8
            batch = torch.zeros((size, 1, 3, 224, 224), dtype=torch.uint8, device=device)
            plain = loaded(detector, weights, device, mode.removesuffix(", compiled"))
            amount = size * operations(lambda plain=plain, b=batch[:1]: plain.logits(b))
            top = took = 0.0
            for _ in range(3):  # one beside the other: a busy machine slows both down
                top = max(top, 2 * side**3 / best(lambda: a @ a, device))
                now = best(lambda one=one, batch=batch: one.logits(batch), device)
                took = min(took or now, now)
            print(
                f"  {detector}, {mode}: batch {size}, {size / took:.2f} images/s, "
                f"{amount / took / 1e12:.3g} of {top / 1e12:.3g} TFLOP/s: "
                f"{amount / took / top:.0%} of the measured ceiling"
            )


def operations(action: Callable[[], object]) -> int:
    """Return the floating-point operations of products in ``action``."""
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not know the one call that attention is where this is on.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            action()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


def best(action: Callable[[], object], device: str) -> float:
    """Return the seconds that ``action`` takes: the mean of many on a GPU, the least on a CPU."""
    if device == "cpu":
        times = []
        for _ in range(3):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return min(times)
    for _ in range(3):
        action()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        action()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--detector", choices=DETECTORS, action="append")
    parser.add_argument("--device", choices=tuple(AIMS), help="default: cuda where there is one")
    parser.add_argument("-n", type=int, help="images (default: 16 on a CPU, 1024 on a GPU)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="side of the images")
    parser.add_argument("--heads", type=int, default=3, help="detectors that share preprocessing")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(json.loads(arguments.work))
        return
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    count = arguments.n or (1024 if device == "cuda" else 16)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as place:
        make_images(Path(place), count, arguments.size)
        for detector in arguments.detector or DETECTORS:
            compare(detector, device, Path(place), arguments.rounds)
        sharing(Path(place), arguments.heads, arguments.rounds)
        for detector in arguments.detector or DETECTORS:
            ceiling(detector, device)


if __name__ == "__main__":
    main()
