"""Contestants: folders of images, and the pictures that they have of each prompt."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realbench.arena.judges.judge import Picture, Showing
from realbench.errors import UsageError
from realbench.images import (
    DEFAULT_MAX_PIXELS,
    ImageFile,
    UnreadableImage,
    decode,
    find_images,
    printable,
    read_bytes_and_hash,
)
from realbench.prompts import Prompt
from realbench.scoring.cache import ScoreCache, file_stat
from realbench.scoring.layout import decoding_threads
from realbench.scoring.run import display_names

# Marks in the score cache the contents that were decoded without an error.
_DECODED = "decoded by realbench.images, version 1"
_THREADS = 4  # a decoded picture can take much memory


@dataclass(frozen=True, slots=True)
class Lineup:
    """Who meets whom on which prompts.

    Attributes:
        contestants: Names, in the order of the folders, the reference last.
        reference: The photographs' name, if there are any.
        folders: Each contestant's folder.
        pictures: By contestant and prompt id; each prompt is one that at least two have.
        prompts: Each of these prompts' text, None where no suite names it.
        n_images: How many image files each folder holds.
        stand_ins: Whether the reference's photographs have prompt ids of their own, so that
            each prompt has one of them drawn for it.
        dropped: Prompt ids of each contestant that no other one has.
        missing: Prompt ids that others share and the contestant lacks.
        unreadable: Each contestant's files that cannot be read, with the reason.
        doubles: Each contestant's files whose prompt another of its files has already.
        notes: What the user should know of all this, one line each.
    """

    contestants: list[str]
    reference: str | None
    folders: dict[str, Path]
    pictures: dict[tuple[str, str], Picture]
    prompts: dict[str, str | None]
    n_images: dict[str, int]
    stand_ins: bool = False
    dropped: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    doubles: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def prompt_ids(self) -> dict[str, set[str]]:
        """Return each contestant's prompt ids that it shares with others."""
        ids: dict[str, set[str]] = {name: set() for name in self.contestants}
        for name, prompt in self.pictures:
            ids[name].add(prompt)
        return ids

    def showing(self, prompt_id: str, first: str, second: str) -> Showing:
        """Return two contestants' pictures of a prompt in this order.

        A photograph that stands in shows something else than the prompt says, so that the
        prompt would give it away: it is then shown without.
        """
        hidden = self.stand_ins and self.reference in (first, second)
        text = None if hidden else self.prompts[prompt_id]
        one, two = self.pictures[first, prompt_id], self.pictures[second, prompt_id]
        return Showing(prompt_id, text, one, two)
