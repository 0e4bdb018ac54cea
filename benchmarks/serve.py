"""Speed of the reward server against the scorer in one process, as ratios within one run.

    python benchmarks/serve.py                          # 256 px, 1, 4 and 16 clients
    python benchmarks/serve.py --size 1024 -n 64 --encoding png
    python benchmarks/serve.py --bare                   # a reward that costs nothing

Images per second of the embedded detectors on the same images, in every round one after the other:

- *in process*: a ``Reward`` of the detectors, called with ``--group`` images at a time;
- *server, k clients*: ``realbench serve`` in a process of its own; k threads, each a client with
  one connection, send ``--group`` images at a time until all are rewarded.

Clients run on the same machine, so what encoding and sending costs is in the figures. The
processor time of server and clients together, in milliseconds an image, is what to look at on a
machine that is busy with other things. With ``--bare`` the reward is a constant: what is left is
the server's own limit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil

REALBENCH = [sys.executable, "-c", "from realbench.cli import main; main()"]
BARE = "def constant(images, prompts):\n    return [0.5] * len(images)\n"
CONFIG = "[[reward.components]]\nkind = '{kind}'\n{more}\n"


def make_images(count: int, size: int) -> list[np.ndarray]:
    """Return rendered scenes with grain, uint8 (size, size, 3)."""
    from realbench.rendering import mountains, spheres

    scenes = [draw(size, seed) for draw in (mountains, spheres) for seed in range(4)]
    rng = np.random.default_rng(0)
    images = []
    for n in range(count):
        grain = rng.normal(0, 6, (size, size, 1)).astype(np.float32)
        images.append(np.clip(scenes[n % len(scenes)] + grain, 0, 255).astype(np.uint8))
    return images


@contextmanager
def server(folder: Path, device: str) -> Iterator[tuple[str, int]]:
    """Run the server on a free port; yield its address and its process id."""
    process = subprocess.Popen(
        [*REALBENCH, "serve", "--config", "reward.toml", "--port", "0", "--device", device],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start")
        yield line.split(" on ")[1].split()[0], process.pid
    finally:
        process.terminate()
        process.wait()


def groups(images: Sequence[np.ndarray], size: int) -> list[Sequence[np.ndarray]]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def clients(
    url: str, count: int, images: Sequence[np.ndarray], group: int, encoding: str
) -> Callable[[], float]:
    """Return a function that has all images rewarded by ``count`` clients, and its seconds."""
    from realbench.reward.client import RewardClient

    each = [
        RewardClient(url, connections=1, images_per_request=group, encoding=encoding)  # type: ignore[arg-type]
        for _ in range(count)
    ]
    batches = groups(images, group)

    def run() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            calls = [
                pool.submit(each[n % count], batch, [""] * len(batch))
                for n, batch in enumerate(batches)
            ]
            for call in calls:
                call.result()
        return time.perf_counter() - start

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--images", type=int, default=128)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--group", type=int, default=8, help="images a request")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--encoding", choices=["npy", "png", "jpeg"], default="npy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bare", action="store_true", help="a reward that costs nothing")
    options = parser.parse_args()

    images = make_images(options.images, options.size)
    kind, more = ("function", "function = 'bare:constant'") if options.bare else ("detectors", "")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "bare.py").write_text(BARE)
        (folder / "reward.toml").write_text(CONFIG.format(kind=kind, more=more))
        url, pid = stack.enter_context(server(folder, options.device))
        processes = [psutil.Process(), psutil.Process(pid)]
        ways: dict[str, Callable[[], float]] = {}
        if not options.bare:
            ways["in process"] = in_process(images, options.group, options.device)
        for count in options.clients:
            name = f"server, {count} client{'s' if count > 1 else ''}"
            ways[name] = clients(url, count, images, options.group, options.encoding)
        for run in ways.values():
            run()  # warm
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        busy: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, run in ways.items():
                before = processor_seconds(processes)
                seconds[name].append(run())
                busy[name].append(processor_seconds(processes) - before)
    report(seconds, busy, options)


def processor_seconds(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def in_process(images: Sequence[np.ndarray], group: int, device: str) -> Callable[[], float]:
    from realbench.reward.reward import RewardConfig, build_reward

    reward = build_reward(RewardConfig(), device=device)

    def run() -> float:
        start = time.perf_counter()
        for batch in groups(images, group):
            reward(batch, [""] * len(batch))
        return time.perf_counter() - start

    return run


def report(
    seconds: dict[str, list[float]], busy: dict[str, list[float]], options: argparse.Namespace
) -> None:
    """Print each way's speed (median of the rounds), its ratio to the first's, and its cost."""
    first = next(iter(seconds))
    print(
        f"{options.images} images of {options.size} px as {options.encoding}, {options.group} a "
        f"request, median of {options.rounds} rounds"
    )
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(seconds[first], taken, strict=True)]
        low, high = min(ratios), max(ratios)
        print(
            f"{name:20} {options.images / statistics.median(taken):9.1f} images/s   "
            f"{statistics.median(ratios):5.2f} of {first} ({low:.2f} to {high:.2f})   "
            f"{1000 * statistics.median(busy[name]) / options.images:7.2f} ms of processor an image"
        )


if __name__ == "__main__":
    main()
