"""The format of an entry: one JSON file, every field of which is checked.

The file is data from strangers: unknown fields, wrong types, invisible characters and numbers
out of range are errors. ``leaderboards/schema.json`` publishes the format as JSON Schema.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from realbench.files import unique_keys
from realbench.leaderboard.names import label, model_name, plain_text

FORMAT = 1
SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"

Text = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(plain_text)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(label)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(model_name)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ShortDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=-(2**53), le=2**53)]
Real = Annotated[float, Field(ge=-(2**53), le=2**53)]
Count = Annotated[int, Field(ge=0, le=100_000_000)]


class Strict(BaseModel):
    """A part of a file in which nothing is converted, guessed or passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Model(Strict):
    """The model whose images were scored."""

    name: Name = Field(description="Unique on the board; the file is named after it.")
    version: Label | None = None
    organisation: Label | None = None
    licence: Label | None = Field(default=None, description="Of the weights, as SPDX where it has.")
    parameters: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?[KMBT]$",
        description="Such as 12B or 860M.",
    )
    date: str | None = Field(
        default=None,
        pattern=r"^[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?$",
        description="Of the model's release: YYYY, YYYY-MM or YYYY-MM-DD.",
    )
    link: Text | None = Field(default=None, description="An https address about the model.")

    @field_validator("link")
    @classmethod
    def _is_address(cls, link: str | None) -> str | None:
        address = r"https://[A-Za-z0-9.-]+\.[A-Za-z]{2,}(:[0-9]{1,5})?(/[A-Za-z0-9._~/%?=&+,:#-]*)?"
        if link is not None and not re.fullmatch(address, link):
            raise ValueError(
                "is no plain https address; give one such as https://example.org/model"
            )
        return link


class SuiteUsed(Strict):
    """The prompts that the images were made from."""

    name: Text
    sha256: Sha256


class Estimate(Strict):
    """A mean with its 95 % interval over prompts; no interval under two prompts."""

    mean: float
    low: float | None
    high: float | None
    n: Count
    n_prompts: Count


class Fused(Strict):
    """A detector's part of a fused ensemble, whose logit is the sum of weight · logit + offset."""

    weight: float = Field(ge=0)
    offset: float


class DetectorUsed(Strict):
    """A detector of the ensemble."""

    name: Key
    level: Literal["feature", "semantic"]
    fingerprint: Sha256
    fused: Fused | None = Field(
        default=None,
        description="Where realbench detectors fuse made the ensemble; else each level weighs the "
        "same, and so does each detector inside a level.",
    )


ImageScore = tuple[Text, ShortDigest, Share, list[Share]]
"""Prompt id, first 16 digits of the file's SHA-256, realism, P(real) of each detector."""


class CrossFit(Strict):
    """Which of several sets of detectors scored which image of an anchor.

    So that photographs are one anchor where each was held out by another fold.
    """

    sets: list[list[Sha256]] = Field(
        min_length=2, max_length=100, description="Fingerprints, in the order of the detectors."
    )
    set_of_image: list[Count] = Field(description="An index of sets for each image, from 0.")


class ImageFeatures(Strict):
    """What a network that judges nothing made of the images, from which distances follow."""

    name: Key
    fingerprint: Sha256
    vectors: list[Annotated[str, StringConstraints(max_length=20_000)]] = Field(
        description="Of each image, in their order: base64 of a little-endian float32, the scale, "
        "and of int8 values, which times the scale are the features."
    )


class DetectorScores(Strict):
    """What Detector-Scoring found; every figure follows from ``images``."""

    detectors: list[DetectorUsed] = Field(min_length=1, max_length=64)
    n_failed: Count = Field(description="Images that could not be read.")
    realism: Estimate
    escape_rate: Estimate = Field(description="Share of images with realism above 0.5.")
    per_detector: dict[Key, Estimate]
    categories: dict[Text, Estimate] = Field(description="Realism by the suite's categories.")
    images: list[ImageScore] = Field(
        min_length=1,
        max_length=50_000,
        description="Prompt id, first 16 digits of the file's SHA-256, realism, P(real) of each "
        "detector in their order.",
    )
    cross_fit: CrossFit | None = Field(
        default=None,
        description="Of an anchor that board.toml lets several sets of detectors score; the "
        "fingerprints of detectors are then the first set's.",
    )
    features: ImageFeatures | None = Field(
        default=None, description="Where the run had --distances and the board shows them."
    )


class ArenaScores(Strict):
    """What the board's judge said in comparisons with others; figures follow from ``opponents``."""

    judge: Text
    judge_fingerprint: Sha256
    template_sha256: Sha256 | None
    run: ShortDigest = Field(description="Tells arenas apart: a digest of the votes.")
    contestant: Name = Field(description="What the model is called in that arena.")
    prompts: list[Text] = Field(min_length=1, max_length=50_000)
    images: list[ShortDigest] = Field(description="The model's image of each prompt.")
    opponents: dict[Name, Annotated[str, StringConstraints(pattern=r"^[WTL-]+$")]] = Field(
        min_length=1,
        description="A letter a prompt: won, tied, lost against them, or - for not compared.",
    )
    wins: Count
    ties: Count
    losses: Count
    win_rate: Estimate = Field(description="Ties count half.")


class Entry(Strict):
    """One model's entry on a board, ``results/<slug of the name>.json``."""

    format: Literal[1]
    model: Model
    sampler: dict[Key, Label | Number | Real | bool] = Field(
        default_factory=dict, max_length=40, description="How the images were made."
    )
    suite: SuiteUsed
    detector_scoring: DetectorScores | None = None
    arena_scoring: ArenaScores | None = None
    versions: dict[Key, Text] = Field(max_length=40)

    @model_validator(mode="after")
    def _has_scores(self) -> Entry:
        if self.detector_scoring is None and self.arena_scoring is None:
            raise ValueError("has neither detector_scoring nor arena_scoring; it needs one")
        return self


class EntryError(ValueError):
    """What is wrong with an entry's file, as ``what: what to do`` each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse_entry(data: bytes) -> Entry:
    """Read an entry.

    Raises:
        EntryError: it is none, or of another format than this version's.
    """
    record = _load(data)
    found = record.get("format")
    if not isinstance(found, int) or isinstance(found, bool):
        raise EntryError([f"format is no number: write the file with add (format {FORMAT})"])
    if found != FORMAT:
        raise EntryError(
            [f"format {found} cannot be read by this version (format {FORMAT}): write it anew"]
        )
    try:
        return Entry.model_validate_json(json.dumps(record))
    except ValidationError as error:
        raise EntryError(_problems(error)) from error


def _load(data: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        record = json.loads(
            data.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=refuse
        )
    except RecursionError as error:
        raise EntryError(
            ["nested too deeply: write the file with realbench leaderboard add"]
        ) from error
    except ValueError as error:
        raise EntryError(
            [f"no valid JSON ({_short(str(error))}): write it with realbench leaderboard add"]
        ) from error
    if not isinstance(record, dict):
        raise EntryError(["no JSON object: write the file with realbench leaderboard add"])
    return record


def _problems(error: ValidationError, limit: int = 5) -> list[str]:
    """Say in a line each what is wrong; the first few."""
    found = []
    for one in error.errors(include_url=False)[:limit]:
        place = ".".join(_short(str(part), 40) for part in one["loc"]) or "the entry"
        reason = one["msg"].removeprefix("Value error, ")
        reason = reason[0].lower() + reason[1:]
        found.append(f"{place}: {_short(reason)}: see leaderboards/schema.json")
    more = error.error_count() - limit
    if more > 0:
        found.append(f"{more} more errors of format: see leaderboards/schema.json")
    return found


def _short(text: str, limit: int = 160) -> str:
    """A stranger's text on one line, without what could steer a terminal."""
    shown = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def entry_bytes(entry: Entry) -> bytes:
    """Return the entry as its file: indented JSON, a line for each image, always the same."""
    return (_layout(entry.model_dump(mode="json"), 0) + "\n").encode()


_LONG = 200  # characters of a text that gets a line of its own


def _layout(value: Any, depth: int) -> str:
    """Indent objects and lists of lists; keep lists of plain values on their line."""
    indent, inner = "  " * depth, "  " * (depth + 1)
    if isinstance(value, dict) and value:
        if set(value) == set(Estimate.model_fields):
            return json.dumps(value, ensure_ascii=False)
        items = [
            f"{inner}{json.dumps(k, ensure_ascii=False)}: {_layout(v, depth + 1)}"
            for k, v in value.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(
        isinstance(one, list | dict) or (isinstance(one, str) and len(one) > _LONG) for one in value
    ):
        if all(not isinstance(one, dict) for one in value):
            rows = [inner + json.dumps(one, ensure_ascii=False) for one in value]
        else:
            rows = [inner + _layout(one, depth + 1) for one in value]
        return "[\n" + ",\n".join(rows) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def json_schema() -> bytes:
    """Return what ``leaderboards/schema.json`` holds."""
    schema = {
        "$schema": SCHEMA_URL,
        "title": "RealBench leaderboard entry",
        **{k: v for k, v in Entry.model_json_schema().items() if k != "title"},
    }
    return (json.dumps(schema, indent=2, ensure_ascii=False) + "\n").encode()
