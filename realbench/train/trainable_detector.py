"""A detector of the reward whose weights go on learning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.config.config_files import as_toml
from realbench.detection.families.embedded import load_network
from realbench.detection.families.experts import ExpertLinear
from realbench.detection.families.patch_statistics import PatchStatistics
from realbench.detection.families.views import ViewsDetector, raw_logits
from realbench.detection.specs import CARD_FILE
from realbench.files import file_sha256, write_whole
from realbench.train.config import CotrainingConfig

Part = Literal["head", "experts", "all"]
_WEIGHTS_FILE = "weights.safetensors"
_EXPORTED = ("whole-image", "native-crops")  # families that read a network's own weights back


@dataclass(frozen=True, slots=True)
class Fit:
    """What an update of a detector came to.

    Attributes:
        epochs: 0 where the accuracy was high enough before.
        accuracy_before, accuracy: balanced; the first is that of the detector that scored, the
            second that of the last epoch, each batch being judged before it is learned from.
        loss: mean of the last epoch; of the judgement before where there was none.
    """

    epochs: int
    accuracy_before: float
    accuracy: float
    loss: float


def can_be_trained(detector: object) -> bool:
    """Return whether a detector is a network with weights (a VLM that is asked is not)."""
    return isinstance(detector, ViewsDetector) and bool(trained_weights(detector.network, "all"))


def trained_weights(network: nn.Module, part: Part) -> dict[str, nn.Parameter]:
    """Return the weights that are trained, by name.

    Of patch statistics these are the layer that tells photographs from generated images and, for
    ``"all"``, the transformer. The layers that reject noise and broken output stay, or a generator
    that breaks would teach them to take it. Of other networks it is the last layer, that and the
    experts (of OmniAID, as RealGen-V2 trains it), or everything.
    """
    floating = {name: p for name, p in network.named_parameters() if p.is_floating_point()}
    if isinstance(network, PatchStatistics):
        starts: tuple[str, ...] = ("real.", "backbone.") if part == "all" else ("real.",)
    elif part == "all":
        return floating
    else:
        modules = list(network.named_modules())
        layers = [name for name, one in modules if isinstance(one, nn.Linear | nn.Conv2d)]
        starts = (f"{layers[-1]}.",) if layers else ()
        if part == "experts":
            experts = [name for name, one in modules if isinstance(one, ExpertLinear)]
            starts += tuple(f"{name}.{matrix}" for name in experts for matrix in "usv")
    return {name: p for name, p in floating.items() if name.startswith(starts)}


class TrainableDetector:
    """Trains a detector in place; between updates it scores with the mean of its weights."""

    def __init__(self, detector: ViewsDetector, config: CotrainingConfig) -> None:
        self.detector = detector
        if isinstance(detector.network, PatchStatistics):  # that was made ready to score alone
            device = next(detector.network.parameters()).device
            detector.network = load_network(detector.card).eval().requires_grad_(False).to(device)
        self.network = detector.network
        self._config = config
        self._fingerprint = detector.fingerprint
        self._weights = trained_weights(self.network, config.part)
        # What was trained last; the network itself holds the running mean.
        self._latest = {name: p.detach().clone() for name, p in self._weights.items()}
        self._optimizer = torch.optim.AdamW(  # its moments last from one update to the next
            self._weights.values(), lr=config.learning_rate, weight_decay=0.0
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def realism(self, images: Sequence[np.ndarray]) -> float:
        """Return the mean P(real) of uint8 RGB images (H, W, 3), by the weights that score."""
        with torch.no_grad():
            parts = self._inputs(images).split(self._config.batch_size)
            return float(torch.cat([self._logits(part) for part in parts]).sigmoid().mean())

    def fit(
        self,
        real: Sequence[np.ndarray],
        generated: Sequence[np.ndarray],
        rng: np.random.Generator,
    ) -> Fit:
        """Learn to tell images apart, until the accuracy or the number of epochs is reached.

        Args:
            real, generated: uint8 RGB (H, W, 3).
        """
        config = self._config
        inputs = self._inputs([*real, *generated])
        label = torch.arange(len(inputs), device=self.device) < len(real)
        before, loss = self._judge(inputs, label)  # with the mean of the weights, which scores
        accuracy, epochs = before, 0
        if accuracy >= config.accuracy:
            return Fit(epochs, before, accuracy, loss)
        with self._training():
            while accuracy < config.accuracy and epochs < config.epochs:
                accuracy, loss = self._epoch(inputs, label, rng)
                epochs += 1
        return Fit(epochs, before, accuracy, loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean and the latest weights, on the CPU, and the optimiser's moments."""
        mean = {f"mean.{name}": p.detach().cpu().clone() for name, p in self._weights.items()}
        latest = {f"latest.{name}": value.cpu().clone() for name, value in self._latest.items()}
        return mean | latest | {"optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set everything to what :meth:`state_dict` returned."""
        self._optimizer.load_state_dict(state["optimizer"])
        for name, parameter in self._weights.items():
            parameter.copy_(state[f"mean.{name}"])
            self._latest[name].copy_(state[f"latest.{name}"])
        self._sign()

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Put the latest weights into the network, and their running mean afterwards."""
        mean = {name: p.detach().clone() for name, p in self._weights.items()}
        self._mean = mean
        self._set(self._latest)
        for parameter in self._weights.values():
            parameter.requires_grad_(True)
        try:
            with torch.enable_grad():
                yield
        finally:
            for name, parameter in self._weights.items():
                parameter.requires_grad_(False)
                parameter.grad = None
                self._latest[name] = parameter.detach().clone()
            self._set(mean)
            self._sign()

    def _epoch(
        self, inputs: Tensor, label: Tensor, rng: np.random.Generator
    ) -> tuple[float, float]:
        order = torch.from_numpy(rng.permutation(len(inputs)))
        logits, losses = torch.empty(len(inputs)), []
        for chosen in order.split(self._config.batch_size):
            found = self._logits(inputs[chosen.to(inputs.device)])
            loss = self._loss(found, label[chosen.to(label.device)])
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self._average()
            logits[chosen] = found.detach().cpu()
            losses.append(loss.item() * len(chosen))
        return _balanced_accuracy(logits, label.cpu()), sum(losses) / len(inputs)

    @torch.no_grad()
    def _judge(self, inputs: Tensor, label: Tensor) -> tuple[float, float]:
        parts = [self._logits(part) for part in inputs.split(self._config.batch_size)]
        logits = torch.cat(parts)
        return _balanced_accuracy(logits, label), self._loss(logits, label).item()

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        smoothing = self._config.label_smoothing
        target = label.float() * (1 - 2 * smoothing) + smoothing
        return functional.binary_cross_entropy_with_logits(logits, target)

    @property
    def _only_judges(self) -> bool:
        """Whether what the images are judged by does not change while the detector learns."""
        return isinstance(self.network, PatchStatistics) and self._config.part != "all"

    @torch.no_grad()
    def _inputs(self, images: Sequence[np.ndarray]) -> Tensor:
        """Return what is learned from: views (n, views, 3, S, S), or their statistics."""
        views = torch.stack([self.detector.prepare(image) for image in images])
        if not self._only_judges:
            return views
        network: Any = self.network
        rows = []
        for part in views.flatten(0, 1).split(self._config.batch_size):
            rows.append(network.statistics(part.to(self.device).float()))
        return torch.cat(rows).view(*views.shape[:2], -1)

    def _logits(self, inputs: Tensor) -> Tensor:
        """Return the calibrated logits of P(real), (n,), with gradients."""
        card = self.detector.card
        if self._only_judges:
            network: Any = self.network
            raw = network.judge(inputs.flatten(0, 1)).view(len(inputs), -1).mean(dim=1)
            raw = -raw if card.output.kind == "logit-fake" else raw
        else:
            fake = card.output.kind == "logit-fake"
            raw = raw_logits(self.network, inputs, self.device, fake=fake, blanks=False)
        return (raw + card.calibration.bias) / card.calibration.temperature

    @torch.no_grad()
    def _average(self) -> None:
        for name, parameter in self._weights.items():
            self._mean[name].lerp_(parameter, 1 - self._config.ema)

    @torch.no_grad()
    def _set(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._weights.items():
            parameter.copy_(weights[name])

    def _sign(self) -> None:
        """Give the detector the fingerprint of the weights that it now scores with."""
        digest = hashlib.sha256(self._fingerprint.encode())
        for name, parameter in sorted(self._weights.items()):
            digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
        self.detector.fingerprint = digest.hexdigest()


def _balanced_accuracy(logits: Tensor, label: Tensor) -> float:
    right = (logits > 0) == label
    return float((right[label].double().mean() + right[~label].double().mean()) / 2)


def can_be_exported(detector: ViewsDetector) -> bool:
    """Return whether the family reads the network's own weights back."""
    return detector.card.family in _EXPORTED


def export_detector(detector: ViewsDetector, folder: Path) -> Path:
    """Write card and weights to ``folder/NAME-cotrained``, and return that folder."""
    from safetensors.torch import save_file

    card = detector.card
    name = f"{card.name[:54]}-cotrained"
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    state = {key: value.cpu().contiguous() for key, value in detector.network.state_dict().items()}
    write_whole(target / _WEIGHTS_FILE, lambda path: save_file(state, path))
    fields: dict[str, Any] = card.model_dump(
        mode="json",
        exclude_none=True,
        exclude_defaults=True,
        exclude={"name", "weights", "backbone"},
    )
    fields = {"name": name} | fields
    fields["description"] = f"{card.description}; co-trained with a generator"
    sha256 = file_sha256(target / _WEIGHTS_FILE)
    fields["weights"] = {"source": "local", "file": _WEIGHTS_FILE, "sha256": sha256}
    write_whole(target / CARD_FILE, lambda path: path.write_text(as_toml(fields), encoding="utf-8"))
    return target
