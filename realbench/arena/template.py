"""Judge templates: what a vision-language model is told when it judges two pictures."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from realbench.config.config_files import check_config, read_toml
from realbench.content import content_path
from realbench.errors import UsageError
from realbench.text import printable

DEFAULT_TEMPLATE = "photorealism-v1"

_PROMPT = "{prompt}"
_BRACKETS = dict.fromkeys("<‹〈⟨❮", "‹") | dict.fromkeys(">›〉⟩❯", "›")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Key = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerdictField(_Strict):
    """The key of a JSON answer that holds the verdict, and its three values."""

    key: Key = "verdict"
    description: Text
    first: Text
    second: Text
    tie: Text


class Reasoned(_Strict):
    """How a judge that writes is asked: reasons first, then the verdict, as one JSON object."""

    instruction: Text
    reasons: dict[Key, Text] = Field(min_length=1, description="key of the answer -> what it is")
    verdict: VerdictField

    @model_validator(mode="after")
    def _apart(self) -> Reasoned:
        if self.verdict.key in self.reasons:
            raise ValueError(f"reasons and verdict share the key {self.verdict.key!r}")
        _check_apart(self.verdict.first, self.verdict.second, self.verdict.tie)
        return self


class Answers(_Strict):
    """The short answers that mean each verdict."""

    first: tuple[Text, ...] = Field(min_length=1)
    second: tuple[Text, ...] = Field(min_length=1)
    tie: tuple[Text, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> Answers:
        _check_apart(*self.first, *self.second, *self.tie)
        return self


class Direct(_Strict):
    """How a judge is asked whose answer is read from the probabilities of its first token."""

    instruction: Text
    answers: Answers


@dataclass(frozen=True, slots=True)
class Wording:
    """The texts of one question, in the order in which the judge sees them.

    The first picture comes between ``before_first`` and ``before_second``, the second one
    between ``before_second`` and ``question``.
    """

    system: str
    before_first: str
    before_second: str
    question: str


class Template(_Strict):
    """One version of a judge's instructions, as read from a TOML file.

    ``prompts/judges/README.md`` describes the fields.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    version: int = Field(ge=1)
    description: Text
    system: Text
    prompt_section: Text | None = None
    first_label: Text
    second_label: Text
    reasoned: Reasoned
    direct: Direct

    @field_validator("prompt_section")
    @classmethod
    def _has_place(cls, section: str | None) -> str | None:
        if section is not None and section.count(_PROMPT) != 1:
            raise ValueError(f"{_PROMPT} must stand in it once")
        return section

    @cached_property
    def sha256(self) -> str:
        """Hex digest (64 characters) of the fields; comments and layout do not change it."""
        # Defaults are left out, so that a field that is added later changes no older hash.
        fields = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what ``run.json`` says of it: name, version and sha256."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}

    def reasoned_wording(self, prompt: str | None) -> Wording:
        """Return the texts for a judge that answers in JSON, with the prompt if there is one."""
        return self._wording(prompt, self.reasoned.instruction)

    def direct_wording(self, prompt: str | None) -> Wording:
        """Return the texts for a judge that answers in one token."""
        return self._wording(prompt, self.direct.instruction)

    def answer_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a reasoned answer: every key required, the verdict last."""
        verdict = self.reasoned.verdict
        properties: dict[str, Any] = {
            key: {"type": "string", "description": what}
            for key, what in self.reasoned.reasons.items()
        }
        properties[verdict.key] = {
            "type": "string",
            "enum": [verdict.first, verdict.second, verdict.tie],
            "description": verdict.description,
        }
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def _wording(self, prompt: str | None, instruction: str) -> Wording:
        before_first = self.first_label
        if prompt is not None and self.prompt_section is not None:
            # Not str.format: braces in a prompt or a template mean themselves.
            section = self.prompt_section.replace(_PROMPT, fenced(prompt))
            before_first = f"{section}\n\n{self.first_label}"
        return Wording(self.system, before_first, self.second_label, instruction)


def fenced(prompt: str) -> str:
    """Return a prompt as a judge is shown it: one line in which no mark can stand.

    Marks of templates are tags, or lines of their own. Angle brackets, in any of their forms,
    become ``‹`` and ``›``, and white space one space, so that a prompt can neither end its
    section nor begin another one; the words stay as they are.
    """
    text = "".join(
        _BRACKETS.get(unicodedata.normalize("NFKC", letter), letter) for letter in prompt
    )
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def load_template(name_or_path: str | Path = DEFAULT_TEMPLATE) -> Template:
    """Load a template that comes with RealBench, or a file of one's own.

    Args:
        name_or_path: A name such as ``"photorealism-v1"``; or a file, which has a folder or the
            ending ``.toml`` in its name, or is a :class:`~pathlib.Path`.

    Raises:
        UsageError: there is none of this name, or the file is no valid template; the message
            names the file and the field.
    """
    path = Path(name_or_path)
    if not isinstance(name_or_path, Path) and path.name == name_or_path and path.suffix != ".toml":
        names = template_names()
        if name_or_path not in names:
            raise UsageError(
                f"no judge template {name_or_path!r}: there are {', '.join(names)}, or give a "
                ".toml file"
            )
        path = _folder() / f"{name_or_path}.toml"
    what = f"judge template {printable(path)}"
    return check_config(Template, read_toml(path, "judge template"), what)


def template_names() -> list[str]:
    """Return the names of the templates that come with RealBench."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def _folder() -> Path:
    return content_path("prompts") / "judges"


def _check_apart(*answers: str) -> None:
    """Refuse answers that differ only in case, for one answer could then mean two verdicts."""
    every = [answer.casefold() for answer in answers]
    if len(set(every)) != len(every):
        raise ValueError("the answers for first, second and tie must all differ")
