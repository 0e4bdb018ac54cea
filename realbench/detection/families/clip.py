"""CLIP from a file, of open_clip or as transformers has it, and the families of detectors on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card, NetworkCard
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.detection.specs import ClassesSpec
from realbench.detection.weights import card_tensors, fitting
from realbench.errors import RealBenchError, UsageError

_IMAGE = "visual."
_KEPT_POSITIONS = 20


def clip_model(card: NetworkCard, part: str) -> Any:
    """Build the open_clip model of a card and load its weights, in float32 on the CPU.

    Args:
        card: its ``model.architecture`` is open_clip's name.
        part: which of the card's files holds the model.

    Raises:
        UsageError: open_clip has no such architecture.
        RealBenchError: the weights are missing, altered or of another model.
    """
    state = _state(card, part)
    model = _built(card, device="meta")  # as for the encoder below
    _load(model, state, card, part, assign=True)
    if getattr(model, "attn_mask", None) is not None:
        length = model.context_length  # a token sees none that come after it
        model.attn_mask = torch.full((length, length), float("-inf")).triu(1)
    if _is_unfinished(model):
        model = _built(card)
        _load(model, state, card, part)
    return model.eval()


def image_encoder(card: NetworkCard, part: str) -> nn.Module:
    """Do the same for the image side alone: it maps (n, 3, S, S) to features (n, D)."""
    state = _state(card, part)
    if any(name.startswith(_IMAGE) for name in state):
        state = {k.removeprefix(_IMAGE): v for k, v in state.items() if k.startswith(_IMAGE)}
    # Without memory of its own the network takes the file's; random numbers for a large one,
    # which would be overwritten, take half a minute.
    encoder: nn.Module = _built(card, device="meta").visual
    _load(encoder, state, card, part, assign=True)
    if _is_unfinished(encoder):
        encoder = _built(card).visual  # it computes some constants of its own
        _load(encoder, state, card, part)
    return encoder.eval()


def encoder_below(card: NetworkCard, layer: nn.Linear) -> nn.Module:
    """Return the image side of a card's ``backbone``, whose features go into ``layer``.

    Raises:
        RealBenchError: as :func:`image_encoder`, or the layer is for features of another width.
    """
    encoder = image_encoder(card, "backbone")
    width = getattr(encoder, "output_dim", layer.in_features)
    if width != layer.in_features:
        raise RealBenchError(
            f"{card.weights_path} takes {layer.in_features} features, but "
            f"{card.model.architecture!r} of its card gives {width}"
        )
    return encoder


def _is_unfinished(network: nn.Module) -> bool:
    return any(value.is_meta for value in [*network.parameters(), *network.buffers()])


def _built(card: NetworkCard, device: str = "cpu") -> Any:
    import open_clip

    name = card.model.architecture
    if name not in open_clip.list_models():
        raise UsageError(f"{card.path}: open_clip has no model {name!r} (model.architecture)")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of random weights, which are replaced at once
    try:
        return open_clip.create_model(
            name, pretrained=None, load_weights=False, device=device, **card.model.options
        )
    finally:
        logging.disable(before)


def _state(card: NetworkCard, part: str) -> dict[str, Tensor]:
    """Read the tensors; the two tables of positions of Long-CLIP (Zhang et al., ECCV 2024) are one.

    It keeps the first 20 positions of CLIP's own table and takes the others from a second one.
    """
    state = card_tensors(card, part)
    stretched = state.pop("positional_embedding_res", None)
    if stretched is not None:
        kept = state["positional_embedding"][:_KEPT_POSITIONS]
        state["positional_embedding"] = torch.cat([kept, stretched[_KEPT_POSITIONS:]])
    return state


def _load(
    module: nn.Module,
    state: dict[str, Tensor],
    card: NetworkCard,
    part: str,
    *,
    assign: bool = False,
) -> None:
    floats = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    with fitting(card, part):
        module.load_state_dict(floats, assign=assign)


# Every published CLIP transformer has heads of this width.
HEAD_WIDTH = 64

_EMBEDDED_POSITIONS = "embeddings.position_ids"  # saved by older versions, computed by newer ones


class PooledVision(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to CLIP's pooled output (n, D), before its projection.

    Args:
        state: tensors of the tower by transformers' names; their shapes say how large it is.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModel

        width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
        patches = len(state["embeddings.position_embedding.weight"]) - 1
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=len(state["encoder.layers.0.mlp.fc1.weight"]),
            num_hidden_layers=layer_count(state, "encoder.layers."),
            num_attention_heads=max(1, width // HEAD_WIDTH),
            image_size=patch * round(patches**0.5),
            patch_size=patch,
        )
        model = CLIPVisionModel(config)
        self.tower: nn.Module = getattr(model, "vision_model", model)
        kept = {name: v for name, v in state.items() if name != _EMBEDDED_POSITIONS}
        self.tower.load_state_dict(kept)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.tower(pixel_values=x).pooler_output
        return pooled


def layer_count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many layers a checkpoint has, named ``prefix`` and a number from 0."""
    numbers = {
        int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix)
    }
    return max(numbers, default=-1) + 1


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it, in float32."""
    return {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in state.items()
        if name.startswith(prefix)
    }


def linear(state: Mapping[str, Tensor]) -> nn.Linear:
    """Return the linear layer of ``weight`` and ``bias``."""
    outputs, width = state["weight"].shape
    layer = nn.Linear(width, outputs)
    layer.load_state_dict(dict(state))
    return layer


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put matrices that were split by their singular values together again.

    A matrix is ``weight_main`` + ``U_residual`` diag(``S_residual``) ``V_residual``; what else a
    training script keeps of it (``U_r`` and the like) is left out.
    """
    whole = {}
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        if last == "weight_main":
            residual = (f"{stem}.{letter}_residual" for letter in "USV")
            u, s, v = (state[one] for one in residual)
            whole[f"{stem}.weight"] = value + (u * s) @ v
        elif not last.endswith(("_residual", "_r", "_fnorm")):
            whole[name] = value
    return whole


class LinearProbe(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to (n, outputs), as UnivFD (Ojha et al., CVPR 2023).

    Args:
        encoder: maps them to features (n, D).
        head: maps features to outputs.
        unit_length: whether features are scaled to length 1 before.
    """

    def __init__(self, encoder: nn.Module, head: nn.Linear, *, unit_length: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.unit_length = unit_length

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return self.head(functional.normalize(features, dim=1) if self.unit_length else features)


def build_clip_linear(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-linear`` card.

    Its ``backbone`` is the CLIP model, its ``weights`` the linear layer, ``weight`` (outputs, D)
    and ``bias`` (outputs,). With ``unit_length = true`` in ``model.options`` the features are
    scaled to length 1.
    """
    if card.backbone is None:
        raise UsageError(
            f"{card.path}: a clip-linear card says where the CLIP model is: [backbone]"
        )
    options = dict(card.model.options)
    unit_length = bool(options.pop("unit_length", False))
    head = _head(card)  # before the large file, so that a wrong small one shows at once
    model = card.model.model_copy(update={"options": options})
    encoder = encoder_below(card.changed(model=model), head)
    probe = LinearProbe(encoder, head, unit_length=unit_length)
    return published(card, probe, head.out_features)


def _head(card: Card) -> nn.Linear:
    path, state = card.weights_path, card_tensors(card)
    if set(state) != {"weight", "bias"} or state["weight"].ndim != 2:
        raise RealBenchError(
            f"{path} is no linear layer: it should hold weight and bias, but holds "
            f"{', '.join(list(state)[:5])}"
        )
    return linear({name: value.float() for name, value in state.items()})


class ZeroShot(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to the logits of the two classes (n, 2), real first.

    A class is the mean of its prompts' embeddings, each of length 1, scaled to length 1 again
    (prompt ensembling of Radford et al., 2021). Its logit is the cosine to the picture's
    embedding times the model's own scale, so that the softmax is CLIP's.
    """

    classes: Tensor
    scale: Tensor

    def __init__(self, model: Any, tokenize: Any, prompts: ClassesSpec) -> None:
        super().__init__()
        self.encoder = model.visual
        with torch.no_grad():
            each = [
                model.encode_text(tokenize(list(of))) for of in (prompts.real, prompts.generated)
            ]
        means = [functional.normalize(one, dim=-1).mean(dim=0) for one in each]
        self.register_buffer("classes", functional.normalize(torch.stack(means), dim=-1))
        self.register_buffer("scale", model.logit_scale.detach().exp())

    def forward(self, x: Tensor) -> Tensor:
        features = functional.normalize(self.encoder(x), dim=-1)
        return self.scale * features @ self.classes.T


def build_clip_zeroshot(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-zeroshot`` card: its ``weights`` are the CLIP model's."""
    import open_clip

    if card.prompts is None:
        raise UsageError(f"{card.path}: a clip-zeroshot card has [prompts] with real and generated")
    if card.output.kind != "classes" or card.output.real != 0:
        raise UsageError(f'{card.path}: [output] must be kind = "classes", real = 0 (real first)')
    model = clip_model(card, "weights")
    network = ZeroShot(model, open_clip.get_tokenizer(card.model.architecture), card.prompts)
    return published(card, network, 2)


def build_clip_svd(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-svd`` card: its weights are ``backbone.*`` and ``head.*``.

    It is CLIP with tuned singular residuals, as in Effort (Yan et al., ICML 2025): the matrices of
    its self-attention are split by their singular values into a frozen principal part and a
    residual of rank 1, which was trained with a layer of two classes. For a score the split does
    not matter, so the parts are added up once.
    """
    state = card_tensors(card)
    with fitting(card):
        tower = PooledVision(folded(part(state, "backbone.")))
        head = linear(part(state, "head."))
    return published(card, LinearProbe(tower, head), head.out_features)


class BlockTokens(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to (n, 1), as RINE (Koutlis and Papadopoulos, 2024).

    The class token of every block, after the block's second normalisation, is projected; the sum
    of the blocks', weighed for each component of the projection, is projected again and judged.

    Args:
        encoder: of open_clip.
        state: ``alpha`` (1, blocks, D), and layers ``proj1.*``, ``proj2.*`` and ``head.*``.
    """

    shares: Tensor

    def __init__(self, encoder: Any, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("shares", state["alpha"].float().softmax(dim=1))
        self.tokens = perceptron(state, "proj1", 1)
        self.whole = perceptron(state, "proj2", 1)
        head = perceptron(state, "head", 0)
        depths = [len(one) // 2 for one in (self.tokens, self.whole, head)]
        if depths[0] != depths[1] or depths[2] != 3 or len(state) != 1 + 2 * sum(depths):
            raise KeyError("proj1.*, proj2.* or head.*")
        self.head = head[:-1]

    def forward(self, x: Tensor) -> Tensor:
        tokens: list[Tensor] = []
        hooks = [
            block.ln_2.register_forward_hook(lambda _, __, output: tokens.append(output[:, 0]))
            for block in self.encoder.transformer.resblocks
        ]
        try:
            self.encoder(x)
        finally:
            for hook in hooks:
                hook.remove()
        weighed = self.shares * self.tokens(torch.stack(tokens, dim=1))
        return self.head(self.whole(weighed.sum(dim=1)))


def perceptron(state: Mapping[str, Tensor], name: str, number: int) -> nn.Sequential:
    """Return linear layers, every third from ``number`` on, with a ReLU after each."""
    layers: list[nn.Module] = []
    while f"{name}.{number}.weight" in state:
        layers += [linear(part(state, f"{name}.{number}.")), nn.ReLU()]
        number += 3
    return nn.Sequential(*layers)


def build_clip_blocks(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-blocks`` card: ``backbone`` is CLIP, ``weights`` the rest."""
    if card.backbone is None:
        raise UsageError(
            f"{card.path}: a clip-blocks card says where the CLIP model is: [backbone]"
        )
    state = card_tensors(card)  # before the large file, so that a wrong small one shows at once
    encoder = image_encoder(card, "backbone")
    with fitting(card):
        network = BlockTokens(encoder, state)
    return published(card, network, 1)
