"""A network that judges by the statistics of a vision transformer's patches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import timm
import torch
from timm.layers.activations import QuickGELU
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.families.views import has_bfloat16, reduced_precision

# Deviations from photographs, in standard deviations: more than these say no more.
_LIMIT = 4.0
_FAR = 20.0
_QUICK = 1.702  # of the quick GELU

COMPONENTS = 16  # of photographs' statistics, among which they vary most


class PatchStatistics(nn.Module):
    """The first blocks of a vision transformer, patch statistics of some, and three small layers.

    The middle blocks of a self-supervised transformer tell how a picture is rendered; the last
    ones tell what it shows, which is to say nothing here. So the transformer ends at the last
    block that is listed. Mean and deviation over the patches, whatever their places, are
    standardised by those of photographs. Then P(real) is a product of three probabilities:

    - real: a logistic regression on them, each limited to four standard deviations;
    - taken: another one, near 0 for noise, other pictures of nothing, and plain renders;
    - usual: how far they lie from photographs, within the main directions in which those vary and
      outside of them (the two parts of the likelihood of probabilistic principal components,
      Tipping and Bishop 1999, J. R. Statist. Soc. B 61(3)). It is near 0 for broken output.

    The last two are near 1 for photographs and generated images alike. Without them the first
    could say anything of what is unlike all that it learned from.

    With ``tuned``, a second branch leaves the transformer after one of the blocks that are listed:
    its blocks were trained to tell photographs from generated images, and what a layer makes of the
    last one's statistics is added to the logit of *real*.

    Input: float RGB in [0, 255], shape (n, 3, S, S); output: logits of P(real), shape (n,).

    Args:
        architecture: a vision transformer of timm.
        size: S, a multiple of the patch's side.
        blocks: indices of the blocks, from 0, after which statistics are taken.
        class_token: whether the class token after those blocks counts beside mean and deviation.
        tuned: indices of the first and the last trained block; the one before the first is among
            ``blocks``.
        options: further arguments of the transformer.
    """

    backbone: Any
    mean: Tensor
    std: Tensor
    center: Tensor
    scale: Tensor
    basis: Tensor
    spread: Tensor
    rest: Tensor

    def __init__(
        self,
        architecture: str,
        size: int,
        blocks: Sequence[int],
        *,
        class_token: bool = False,
        tuned: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.blocks = sorted(set(blocks))
        if not self.blocks or self.blocks[0] < 0:
            raise ValueError("blocks must be indices from 0, and at least one")
        backbone: Any = timm.create_model(architecture, num_classes=0, img_size=size, **options)
        if max([*self.blocks, *(tuned or ())]) >= len(backbone.blocks):
            raise ValueError(f"{architecture} has {len(backbone.blocks)} blocks")
        self.tail: Any = None
        if tuned:
            first, last = tuned
            if first - 1 not in self.blocks or last < first:
                raise ValueError("tuned must follow one of the blocks that statistics are taken of")
            self.branches_after = first - 1
            self.tail = copy.deepcopy(backbone.blocks[first : last + 1])
            self.tuned = nn.Sequential(
                nn.LayerNorm(3 * backbone.embed_dim), nn.Linear(3 * backbone.embed_dim, 1)
            )
        backbone.prune_intermediate_layers(self.blocks, prune_norm=True, prune_head=True)
        self.backbone = backbone
        self.class_token = class_token
        width = (2 + class_token) * len(self.blocks) * backbone.embed_dim
        self.real = nn.Linear(width, 1)
        self.taken = nn.Linear(width, 1)
        self.usual = nn.Linear(2, 1)
        for name in ("mean", "std"):  # what the transformer was trained with
            triple = torch.tensor(backbone.pretrained_cfg[name]) * 255
            self.register_buffer(name, triple.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("basis", torch.eye(COMPONENTS, width))
        self.register_buffer("spread", torch.ones(COMPONENTS))
        self.register_buffer("rest", torch.ones(1))

    @torch.no_grad()
    def ready(self) -> Self:
        """Make the loaded network faster on a processor; only rounding tells its outputs.

        Its weights are then for this processor, and not to be saved.
        """
        for block in self.backbone.blocks:
            if isinstance(block.mlp.act, QuickGELU):  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702
                for values in (block.mlp.fc1.weight, block.mlp.fc1.bias):
                    values *= _QUICK
                block.mlp.fc2.weight /= _QUICK
                block.mlp.act = nn.SiLU(inplace=True)
        if has_bfloat16("cpu"):  # else each pass would round them anew
            for module in self.backbone.modules():
                if isinstance(module, nn.Linear):
                    module.bfloat16()
        return self

    def statistics(self, x: Tensor) -> Tensor:
        """Return the statistics of the listed blocks.

        Args:
            x: as for the network.

        Returns:
            float32 of shape (n, d): class token if it counts, mean and standard deviation over the
            patches, block by block.
        """
        return self._statistics(self._blocks(x, self.blocks))

    def tokens(self, x: Tensor) -> Tensor:
        """Return the tokens, (n, l, d), that the tuned blocks go on from."""
        ((patches, prefix),) = self._blocks(x, [self.branches_after])
        return torch.cat([prefix, patches], dim=1)

    def _blocks(self, x: Tensor, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return the patches and the prefix tokens after some blocks."""
        with reduced_precision(x.device.type):
            outputs = self.backbone.forward_intermediates(
                (x - self.mean) / self.std,
                indices=indices,
                norm=False,
                stop_early=True,
                output_fmt="NLC",
                intermediates_only=True,
                return_prefix_tokens=True,
            )
        return list(outputs)

    def _statistics(self, outputs: list[tuple[Tensor, Tensor]]) -> Tensor:
        parts = []
        for patches, prefix in outputs:
            parts += _summary(patches.float(), prefix.float(), self.class_token)
        return torch.cat(parts, dim=1)

    def tuned_logits(self, tokens: Tensor) -> Tensor:
        """Return what the tuned blocks say, float32 (n,), of :meth:`tokens`."""
        with reduced_precision(tokens.device.type):
            for block in self.tail:
                tokens = block(tokens)
        count = self.backbone.num_prefix_tokens
        tokens = tokens.float()
        summary = _summary(tokens[:, count:], tokens[:, :count], class_token=True)
        return self.tuned(torch.cat(summary, dim=1)).squeeze(1)

    def standardized(self, statistics: Tensor) -> Tensor:
        """Return statistics (n, d) as deviations from those of photographs."""
        return (statistics - self.center) / self.scale

    def limited(self, deviations: Tensor) -> Tensor:
        """Return deviations (n, d) within [-4, 4], as the logistic regression sees them."""
        return deviations.clamp(-_LIMIT, _LIMIT)

    def distances(self, deviations: Tensor) -> Tensor:
        """Return the log of how far from photographs, float32 (n, 2): within ``basis``, outside.

        Args:
            deviations: from :meth:`standardized`, (n, d).
        """
        z = deviations.clamp(-_FAR, _FAR)
        within = z @ self.basis.T
        outside = (z.square().sum(dim=1) - within.square().sum(dim=1)).clamp(min=0)
        both = [(within.square() / self.spread).mean(dim=1), outside / self.rest]
        return torch.stack(both, dim=1).clamp(min=1e-3).log()

    def judge(self, statistics: Tensor, tuned: Tensor | float = 0.0) -> Tensor:
        """Return logits of P(real), (n,), from statistics, (n, d), and what tuned blocks say."""
        z = self.standardized(statistics)
        limited = self.limited(z)
        real = self.real(limited).squeeze(1) + tuned
        factors = (real, self.taken(limited).squeeze(1), self.usual(self.distances(z)).squeeze(1))
        log_p = functional.logsigmoid(torch.stack(factors, dim=1)).sum(dim=1)
        return log_p - torch.log(-torch.expm1(log_p))

    def forward(self, x: Tensor) -> Tensor:
        outputs = self._blocks(x, self.blocks)
        if self.tail is None:
            return self.judge(self._statistics(outputs))
        patches, prefix = outputs[self.blocks.index(self.branches_after)]
        tuned = self.tuned_logits(torch.cat([prefix, patches], dim=1))
        return self.judge(self._statistics(outputs), tuned)


def _summary(patches: Tensor, prefix: Tensor, class_token: bool) -> list[Tensor]:
    """Return the class token if it counts, and mean and deviation of patches (n, l, d)."""
    first = [prefix[:, 0]] if class_token else []
    mean = patches.mean(dim=1)
    squares = (patches - mean[:, None]).square_().sum(dim=1)  # several times as fast as std
    return [*first, mean, (squares / (patches.shape[1] - 1)).sqrt()]
