"""What a reward is made of, as a configuration file says it (a ``[reward]`` table)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from realbench.config.config_files import Table

Mode = Literal["per-component", "sum"]
"""How components become advantages; see :mod:`realbench.train.advantages`."""


class _Component(Table):
    """What all components have.

    Attributes:
        name: As it stands in reports; the kind where none is given. No two may be the same.
        weight: At least 0; only the ratios count. Of weight 0, a component is measured and shown
            and is no part of the reward.
    """

    name: str = Field(default="", max_length=64)
    weight: float = Field(default=1.0, ge=0)


class DetectorsConfig(_Component):
    """Realism by one detector or an ensemble.

    Attributes:
        detectors: Names or card folders; the embedded pair where none are given.
        weights: Files of your own, by ``NAME`` or ``NAME:PART`` of a detector.
        precision: Of published networks; ``bfloat16`` is meant for GPUs.
        batch_size: Images in a forward pass; by default one that suits the device.
    """

    kind: Literal["detectors"] = "detectors"
    detectors: tuple[str, ...] = ()
    weights: dict[str, str] = Field(default_factory=dict)
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_size: int | None = Field(default=None, ge=1)

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what runs of before 0.2 do not have, so that they can go on."""
        usual = {"weights": {}, "precision": "float32"}
        return {key: value for key, value in dump(self).items() if usual.get(key, self) != value}


class AlignmentConfig(_Component):
    """How well an image fits its prompt, by a CLIP model of open_clip.

    Attributes:
        model: open_clip's name of the architecture, or ``hf-hub:ORG/NAME``, or
            ``local-dir:FOLDER`` (those two bring their weights).
        weights: One of open_clip's tags (``"openai"``, fetched from the hub) or a file. A file of
            Long-CLIP (248 tokens) is recognised; its model is ``ViT-B-16-quickgelu`` or
            ``ViT-L-14-quickgelu``.
        scale: The reward is min(1, scale · max(0, cosine)): CLIPScore (Hessel et al., 2021,
            arXiv 2104.08718) with its factor of 2.5, cut at 1.
        batch_size: Images in a forward pass.
    """

    kind: Literal["alignment"] = "alignment"
    model: str = "ViT-L-14-quickgelu"
    weights: str | None = "openai"
    scale: float = Field(default=2.5, gt=0)
    batch_size: int = Field(default=32, ge=1)


class JudgeConfig(_Component):
    """P(an arena judge finds the image more real than a reference image of the same prompt).

    Attributes:
        judge: As ``realbench arena --judge`` takes it: ``detectors``, ``hf:MODEL`` or
            ``openai:MODEL``.
        references: Folder of reference images, such as photographs, named by prompt id.
        prompts: The suite or file that says which id a prompt has.
        detectors: Of the judge ``detectors``.
        base_url, api_key_env: Of ``openai:``, where it answers and where its key is found.
        template: Of ``hf:`` and ``openai:``, a bundled template's name or a file.
    """

    kind: Literal["judge"] = "judge"
    judge: str = "detectors"
    references: str
    prompts: str
    detectors: tuple[str, ...] = ()
    base_url: str | None = None
    api_key_env: str | None = None
    template: str | None = None


class FunctionConfig(_Component):
    """A function of the user's own.

    Attributes:
        function: ``module:function``, found from the working directory or among what is
            installed. It is called with a list of uint8 RGB arrays (H, W, 3) and a list of texts,
            and returns n numbers in [0, 1].
    """

    kind: Literal["function"] = "function"
    function: str = Field(pattern=r"^[\w.]+:[\w.]+$")


class HttpConfig(_Component):
    """The reward of a ``realbench serve`` elsewhere.

    Attributes:
        url: Such as ``http://127.0.0.1:8765``.
        token_env: Environment variable with the token, where the server wants one.
        token_file: Or a file with it.
        encoding: How images travel: ``npy`` (as they are), ``png`` (as they are, smaller and
            slower) or ``jpeg`` (smallest, but it changes the traces that detectors look at).
        images_per_request: At most.
        connections: Requests under way at once.
        timeout: Seconds that one request may take.
        retries: How often a request is sent again when the server is away or busy.
    """

    kind: Literal["http"] = "http"
    url: str = Field(pattern=r"^https?://[^\s/]+")
    token_env: str | None = None
    token_file: str | None = None
    encoding: Literal["npy", "png", "jpeg"] = "npy"
    images_per_request: int = Field(default=32, ge=1)
    connections: int = Field(default=4, ge=1, le=64)
    timeout: float = Field(default=120.0, gt=0)
    retries: int = Field(default=5, ge=0)


ComponentConfig = Annotated[
    DetectorsConfig | AlignmentConfig | JudgeConfig | FunctionConfig | HttpConfig,
    Field(discriminator="kind"),
]
"""One ``[[reward.components]]`` table; its ``kind`` decides which keys it has."""


class Named:
    """What every term of a reward has: the name and the weight of its table."""

    def __init__(self, config: ComponentConfig) -> None:
        self.name = config.name or config.kind
        self.weight = config.weight


class RewardConfig(Table):
    """The ``[reward]`` table.

    Attributes:
        components: What the reward is the weighted mean of.
        advantages: See :data:`Mode`.
    """

    components: tuple[ComponentConfig, ...] = (DetectorsConfig(),)
    advantages: Mode = "per-component"

    @field_validator("components", mode="after")
    @classmethod
    def _named(cls, components: tuple[ComponentConfig, ...]) -> tuple[ComponentConfig, ...]:
        named = tuple(
            one if one.name else one.model_copy(update={"name": one.kind}) for one in components
        )
        names = [one.name for one in named]
        twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
        if twice is not None:
            raise ValueError(f"two components are called {twice!r}: give each a name of its own")
        return named

    @model_validator(mode="after")
    def _weighted(self) -> RewardConfig:
        if not self.components:
            raise ValueError("a reward needs at least one component")
        if not any(one.weight > 0 for one in self.components):
            raise ValueError("at least one component needs a weight above 0")
        return self
