"""Speed of ViT-L-class detectors, as ratios within one run (machines are noisy).

    python benchmarks/detection.py                     # univfd and effort, on what is here
    python benchmarks/detection.py --detector univfd -n 8 --rounds 3

Weights are random, of the published shapes; images are made, 1024 px JPEG. Ways to score the same
files, each in a process of its own, one after the other in every round:

- *plain loop*: as papers' scripts do it: open one image, torchvision's transforms, one forward
  pass in float32, ``.item()``, the next image;
- *pipeline*: from files to scores as ``realbench score`` does it, float32;
- *pipeline, bfloat16*: with ``--precision bfloat16``;
- on a GPU also *pipeline, bfloat16, compiled*: with ``torch.compile``.

Beside images a second stands the processor time an image (a shared machine disturbs it less), on
a CPU. Then what several detectors of one backbone save by sharing their preprocessing, and on a
GPU the batches found and the share of the measured matrix-product ceiling that a pass reaches.
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
from PIL import Image
from score import make_images, spread  # benchmarks/score.py
from torch import Tensor, nn
from torchvision import transforms

if TYPE_CHECKING:
    from realbench.detection.detector import Detector

DETECTORS = ("univfd", "effort")
PLAIN = "plain loop"
AIMS = {"cpu": 1.3, "cuda": 5.0}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def modes(device: str) -> list[str]:
    """Return the ways that are compared on ``device``."""
    ours = ["pipeline", "pipeline, bfloat16"]
    return [PLAIN, *ours, *(["pipeline, bfloat16, compiled"] if device == "cuda" else [])]


# --- Random weights of the published shapes ------------------------------------------------------


def random_state(network: nn.Module) -> dict[str, Tensor]:
    """Return half-precision tensors for a network on the meta device."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            state[name] = torch.arange(value.numel()).view(value.shape)
            continue
        scale = torch.randn(value.shape, generator=generator, dtype=torch.float32) * 0.02
        is_norm = ("ln_" in name or "norm" in name) and name.endswith("weight")
        state[name] = (scale + is_norm).half()
    return state


def write_weights(detector: str, folder: Path) -> dict[str, str]:
    """Write the files of a detector; returns their paths by part."""
    from safetensors.torch import save_file

    if detector == "univfd":
        tower = {f"visual.{name}": value for name, value in random_state(openai_tower()).items()}
        save_file(tower, folder / "open_clip_model.safetensors")
        torch.save(nn.Linear(768, 1).state_dict(), folder / "fc_weights.pth")
        return {
            "weights": str(folder / "fc_weights.pth"),
            "backbone": str(folder / "open_clip_model.safetensors"),
        }
    state: dict[str, Tensor] = {}
    for name, value in random_state(transformers_tower()).items():
        stem, _, last = name.rpartition(".")
        if "self_attn" in name and last == "weight":
            rows, columns = value.shape
            state |= {
                f"module.backbone.{stem}.weight_main": value,
                f"module.backbone.{stem}.U_residual": torch.randn(rows, 1).half(),
                f"module.backbone.{stem}.S_residual": torch.full((1,), 1e-3).half(),
                f"module.backbone.{stem}.V_residual": torch.randn(1, columns).half(),
            }
        else:
            state[f"module.backbone.{name}"] = value
    head = nn.Linear(1024, 2).state_dict()
    torch.save(state | {f"module.head.{k}": v for k, v in head.items()}, folder / "effort.pth")
    return {"weights": str(folder / "effort.pth")}


def openai_tower(device: str = "meta") -> nn.Module:
    import logging

    import open_clip

    logging.disable(logging.WARNING)  # on random weights
    model = open_clip.create_model("ViT-L-14-quickgelu", load_weights=False, device=device)
    tower: nn.Module = model.visual
    return tower


def transformers_tower() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
    )
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    tower: nn.Module = getattr(model, "vision_model", model)
    return tower


# --- The plain loop, in torchvision's and the authors' terms, without this project ---------------


class ResidualLinear(nn.Module):
    """A layer of Effort as its script runs it: the matrix is put together in every pass."""

    def __init__(self, parts: Mapping[str, Tensor], bias: Tensor) -> None:
        super().__init__()
        for name, value in {**parts, "bias": bias}.items():
            self.register_buffer(name, value.float())

    def forward(self, x: Tensor) -> Tensor:
        residual = self.U_residual @ torch.diag(self.S_residual) @ self.V_residual
        return nn.functional.linear(x, self.weight_main + residual, self.bias)


class PooledHead(nn.Module):
    """The tower of transformers and Effort's layer of two classes."""

    def __init__(self, tower: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.tower(pixel_values=x).pooler_output)
        return logits


def plain_network(detector: str, weights: Mapping[str, str]) -> tuple[nn.Module, Any]:
    """Return a network and torchvision transforms that make its input from a PIL image."""
    normalize = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    if detector == "univfd":
        from safetensors.torch import load_file

        tower = openai_tower()
        state = load_file(weights["backbone"])
        floats = {name.removeprefix("visual."): value.float() for name, value in state.items()}
        tower.load_state_dict(floats, assign=True)
        head = nn.Linear(768, 1)
        head.load_state_dict(torch.load(weights["weights"], weights_only=True))
        return nn.Sequential(tower, head), transforms.Compose(
            [transforms.CenterCrop(224), *normalize]
        )
    state = torch.load(weights["weights"], weights_only=True)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    tower = transformers_tower()
    whole = {
        name.removeprefix("backbone."): value.float()
        for name, value in state.items()
        if name.startswith("backbone.") and not name.endswith(("_main", "_residual"))
    }
    tower.load_state_dict(whole, strict=False, assign=True)
    for name, module in list(tower.named_modules()):
        if f"backbone.{name}.weight_main" in state:
            parent, _, own = name.rpartition(".")
            parts = ("weight_main", "U_residual", "S_residual", "V_residual")
            layer = ResidualLinear(
                {part: state[f"backbone.{name}.{part}"] for part in parts}, module.bias.data
            )
            setattr(tower.get_submodule(parent), own, layer)
    head = nn.Linear(1024, 2)
    head.load_state_dict({part: state[f"head.{part}"].float() for part in ("weight", "bias")})
    return PooledHead(tower, head), transforms.Compose([transforms.Resize((224, 224)), *normalize])


def plain_loop(
    detector: str, weights: Mapping[str, str], device: str, paths: Sequence[Path]
) -> Callable[[], list[float]]:
    network, transform = plain_network(detector, weights)
    network = network.eval().requires_grad_(False).to(device)

    def score() -> list[float]:
        scores = []
        for path in paths:
            with torch.no_grad():
                x = transform(Image.open(path).convert("RGB"))[None].to(device)
                output = network(x)
                fake = output.sigmoid() if output.shape[1] == 1 else output.softmax(dim=1)[:, 1]
                scores.append(1 - fake.item())
        return scores

    return score


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
    from realbench.allocator import keep_freed_memory
    from realbench.detection.ensemble import probability
    from realbench.images import DEFAULT_MAX_PIXELS
    from realbench.scoring.batch_size import find_batch_sizes
    from realbench.scoring.cache import open_cache
    from realbench.scoring.layout import choose_layout, decoding_threads
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
    from realbench.detection.preparation import prepare_for
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


# --- The GPU's ceiling ---------------------------------------------------------------------------


def ceiling(detector: str) -> None:
    """Print which share of the measured matrix-product ceiling forward passes reach (bf16)."""
    from torch.utils.flop_counter import FlopCounterMode

    from realbench.scoring.batch_size import find_batch_sizes

    side = 8192
    a = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    top = 2 * side**3 / cuda_seconds(lambda: a @ a)
    with tempfile.TemporaryDirectory() as place:
        weights = write_weights(detector, Path(place))
        for mode in modes("cuda")[2:]:
            one = loaded(detector, weights, "cuda", mode)
            size = find_batch_sizes({detector: one}, "cuda")[detector]
            batch = torch.zeros((size, 1, 3, 224, 224), dtype=torch.uint8, device="cuda")
            with FlopCounterMode(display=False) as counter:
                loaded(detector, weights, "cuda", "bfloat16").logits(batch[:1])
            took = cuda_seconds(lambda one=one, batch=batch: one.logits(batch))
            reached = counter.get_total_flops() * size / took
            print(
                f"  {detector}, {mode}: batch {size}, {size / took:.0f} images/s, "
                f"{reached / 1e12:.0f} of {top / 1e12:.0f} TFLOP/s: {reached / top:.0%} of the "
                "measured ceiling"
            )


def cuda_seconds(action: Callable[[], object], repeat: int = 20) -> float:
    for _ in range(3):
        action()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeat):
        action()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeat


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
        if device == "cuda":
            for detector in arguments.detector or DETECTORS:
                ceiling(detector)


if __name__ == "__main__":
    main()
