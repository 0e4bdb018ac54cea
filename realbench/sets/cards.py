"""Set cards: the ``set.toml`` that says what a set of pictures is, whose, and where it lies."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import Field, field_validator, model_validator

from realbench.config.config_files import Table, checked_record, read_toml
from realbench.content import content_path
from realbench.errors import UsageError
from realbench.text import printable

SET_FILE = "set.toml"
_VERSION = "sets 1"  # raise it when the code makes other folders of an unchanged card

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Address = Annotated[str, Field(pattern=r"^https?://[^\s/]+/\S*$")]
Bytes = Annotated[int, Field(ge=0)]


class File(Table):
    """One file to fetch: a zip, a tar (WebDataset, too) or a Parquet file."""

    url: Address
    sha256: Sha256 | None = Field(default=None, description="none where nobody publishes it")
    generator: str = Field(default="", description="of its generated pictures; empty: the set")


class Hub(Table):
    """A dataset of the Hugging Face hub, read row by row."""

    kind: Literal["hub"]
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name")
    revision: str = Field(default="", description="branch, tag or commit; empty: main")
    config: str = ""
    split: str
    data_files: str = Field(default="", description="which of its files; empty: as it says itself")


class Archive(Table):
    """Files at addresses."""

    kind: Literal["archive"]
    files: tuple[File, ...] = Field(min_length=1)


class Git(Table):
    """A commit of a repository, fetched as the archive that GitHub, say, offers of it."""

    kind: Literal["git"]
    repo: Address
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="the commit")


class Manual(Table):
    """Files that are given by hand alone, with ``realbench sets get NAME --from FILE``."""

    kind: Literal["manual"]
    how: str = Field(description="what to do to have them, as one sentence in the imperative")


class Embedded(Table):
    """Pictures that come with the package."""

    kind: Literal["embedded"]
    pictures: Literal["demo"]


class Folders(Table):
    """Which paths in an archive, below a repository's own folder, are which pictures.

    ``*`` stands for a name, ``**`` for any path, ``{generator}`` for a name that the generator
    has. What the first ``*`` and the rest stand for is where a picture goes in its folder.
    """

    photographs: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()
    captions: str = Field(default="", description="a file that prompts import can read")


class Columns(Table):
    """Which columns of a table are what; in a WebDataset, ``json.label`` is a key of ``.json``."""

    image: str
    label: str = ""
    real: tuple[str | int | bool, ...] = Field(default=(), description="labels of photographs")
    all: Literal["photographs", "generated"] | None = Field(
        default=None, description="what all pictures are, where there is no label"
    )
    generator: str = ""
    caption: str = ""
    id: str = Field(default="", description="of the prompt; none: rows are numbered")


class SetCard(Table):
    """One set, as read from the ``set.toml`` in ``path``."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    description: str
    licence: str
    homepage: str = ""
    citation: str = ""
    n: int | None = Field(default=None, ge=1, description="pictures; none where it is not stated")
    size: Bytes | None = Field(default=None, description="bytes to fetch, about")
    verified: bool = Field(description="whether its address was tried by who wrote the card")
    content: Sha256 | None = Field(default=None, description="of all pictures, by fetching")
    source: Hub | Archive | Git | Manual | Embedded = Field(discriminator="kind")
    folders: Folders | None = None
    columns: Columns | None = None
    path: Path = Field(exclude=True)

    @field_validator("description", "licence")
    @classmethod
    def _said(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("is empty")
        return text

    @model_validator(mode="after")
    def _complete(self) -> SetCard:
        if self.source.kind == "hub" and self.columns is None:
            raise ValueError("a dataset of the hub needs [columns]")
        if self.source.kind != "embedded" and self.columns is None and self.folders is None:
            raise ValueError("it needs [folders] or [columns], which say what the pictures are")
        if self.folders and not (self.folders.photographs or self.folders.generated):
            raise ValueError("[folders] names neither photographs nor generated pictures")
        if (one := self.columns) and (
            bool(one.label) != bool(one.real) or bool(one.label) == bool(one.all)
        ):
            raise ValueError("[columns] needs label and real, or all, which says what all are")
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest (64 characters) of what decides the pictures; texts for people do not."""
        decisive = self.model_dump(mode="json", include={"source", "folders", "columns", "content"})
        text = json.dumps([_VERSION, decisive], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def address(self) -> str:
        """Where it is, for people."""
        match self.source:
            case Hub(repo=repo, revision=revision):
                return f"hf:{repo}{f'@{revision}' if revision else ''}"
            case Archive(files=files):
                more = f" and {len(files) - 1} more" if len(files) > 1 else ""
                return f"{files[0].url}{more}"
            case Git(repo=repo, revision=revision):
                return f"{repo}@{revision}"
            case Embedded():
                return "comes with the package"
        return "by hand"


def own_folder() -> Path:
    """Return where users keep cards of their own: ``$REALBENCH_SETS``, or a folder of theirs."""
    chosen = os.environ.get("REALBENCH_SETS")
    return Path(chosen) if chosen else platformdirs.user_data_path("realbench") / "sets"


def list_sets() -> dict[str, Path]:
    """Return the folders of all cards by name, sorted: those shipped, and the user's own.

    A card of the user's that is called as a shipped one stands in its place.
    """
    found = {
        folder.name: folder
        for root in (content_path("sets"), own_folder())
        if root.is_dir()
        for folder in root.iterdir()
        if (folder / SET_FILE).is_file()
    }
    return dict(sorted(found.items()))


def find_set(name_or_folder: str | Path) -> SetCard:
    """Return the card of a set's name, or of a folder with a ``set.toml``.

    Raises:
        UsageError: no such set, or its card is not valid; the message names the field.
    """
    name, known = str(name_or_folder), list_sets()
    folder = known.get(name) or Path(name_or_folder).expanduser()
    path = folder / SET_FILE
    if not path.is_file():
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"give a name or a folder with {SET_FILE}"
        raise UsageError(f"no set {printable(name)!r} (known: {', '.join(known)}): {hint}")
    fields = read_toml(path, "set's card")
    refused = f"{printable(path)} is not a valid set's card: "
    card = checked_record(SetCard, fields, refused, "card", path=folder)
    if folder == known.get(name) and card.name != name:
        raise UsageError(f"{refused}it is named {card.name!r}: give folder and card one name")
    return card


def path_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern of :class:`Folders` as a regular expression, with a group ``rest``."""
    rest = re.search(r"\*", pattern)
    start = rest.start() if rest else pattern.rfind("/") + 1
    return re.compile(f"{_regex(pattern[:start])}(?P<rest>{_regex(pattern[start:])})")


def _regex(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\{generator\})", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "{generator}": "(?P<generator>[^/]+)"}
    return "".join(known.get(part, re.escape(part)) for part in parts)
