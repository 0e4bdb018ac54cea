"""Contestants: folders of images, and the pictures that they have of each prompt."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from realbench.arena.judges.judge import Picture, Showing
from realbench.errors import UsageError
from realbench.images import (
    DEFAULT_MAX_PIXELS,
    ImageFile,
    UnreadableImage,
    decode,
    pixel_digest,
    read_bytes_and_hash,
)
from realbench.prompts import Prompt
from realbench.scoring.cache import ScoreCache, file_stat
from realbench.scoring.folders import copies, copy_notes, find_inputs
from realbench.scoring.layout import decoding_threads
from realbench.text import printable

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
        copies: How many files of each contestant hold what another of its files, or a photograph
            of the reference, holds.
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
    copies: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def digests(self) -> dict[tuple[str, str], str]:
        """The pictures' SHA-256, by contestant and prompt id."""
        return {key: picture.sha256 for key, picture in self.pictures.items()}

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


def line_up(
    folders: Sequence[str | Path],
    *,
    reference: str | Path | None = None,
    prompts: Mapping[str, Prompt] | None = None,
    cache: ScoreCache | None = None,
    seed: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_read: Callable[[int, int], None] | None = None,
) -> Lineup:
    """Find the contestants' pictures and the prompts on which they can be compared.

    Every picture is decoded once, so that an unreadable one is known before a judge is asked;
    its prompt is not judged for its contestant, and everything else goes on. Of several files
    that name one prompt in a folder the first in natural order counts, as it does of several that
    hold the same picture; what a model shares with the reference is left out.

    A reference that shares no prompt id with any folder stands in for reality as a whole: each
    prompt has one of its photographs drawn by ``seed``, none a second time before all have had
    a first.

    Args:
        folders: At least one, and two without a reference.
        reference: A folder of photographs, a contestant of its own.
        prompts: Texts by prompt id.
        cache: Remembers which files were read before.
        seed: Of the draw of photographs.
        max_pixels: Larger images count as unreadable.
        on_read: Called with files read and files in all.

    Raises:
        UsageError: too few folders, a folder that is missing, empty or given twice, one of which
            no image can be read, or no prompt that two contestants share.
    """
    every = [Path(folder) for folder in (*folders, *([] if reference is None else [reference]))]
    if len(every) < 2 or not folders:
        raise UsageError(
            "an arena needs two contestants: give two folders or more, or one and --reference"
        )
    inputs = find_inputs(folders, reference)
    names, photos = list(inputs.folders), inputs.photos
    found, notes = inputs.files, inputs.notes
    read = _read_all([file.path for _, file in found], cache, max_pixels, on_read)
    each = [read[file.path] for _, file in found]
    pixels = ["" if isinstance(one, UnreadableImage) else one.pixels for one in each]
    copied = copies([(name, its) for (name, _), its in zip(found, pixels, strict=True)], photos)
    notes += copy_notes([(name, file.image) for name, file in found], pixels, copied)
    files = {
        name: [file for n, (own, file) in enumerate(found) if own == name and n not in copied]
        for name in names
    }
    pictures: dict[str, dict[str, Picture]] = {}
    unreadable: dict[str, dict[str, str]] = {}
    doubles: dict[str, list[str]] = {}
    for name, own in files.items():
        pictures[name], unreadable[name], doubles[name] = _sort_files(name, own, read)
        if not pictures[name]:
            first, why = next(iter(unreadable[name].items()), ("", ""))
            reason = f"can be read: {first}: {why}" if first else f"is another one than in {photos}"
            raise UsageError(
                f"none of the {sum(one == name for one, _ in found)} images of {name} {reason}"
            )
    stand_ins = False
    if photos is not None:
        asked = sorted(set().union(*(pictures[name] for name in names[:-1])))
        if pictures[photos].keys().isdisjoint(asked):
            stand_ins = True
            pictures[photos] = _draw_photographs(list(pictures[photos].values()), asked, seed)
    counts = Counter(prompt for each in pictures.values() for prompt in each)
    shared = {prompt for prompt, n in counts.items() if n > 1}
    if not shared:
        raise UsageError(_nothing_shared(pictures))
    lineup = Lineup(
        contestants=names,
        reference=photos,
        folders=dict(zip(names, every, strict=True)),
        pictures={
            (name, prompt): picture
            for name, each in pictures.items()
            for prompt, picture in each.items()
            if prompt in shared
        },
        prompts={
            prompt: prompts[prompt].prompt if prompts and prompt in prompts else None
            for each in pictures.values()
            for prompt in each
            if prompt in shared
        },
        n_images={name: sum(one == name for one, _ in found) for name in names},
        stand_ins=stand_ins,
        dropped={name: [p for p in each if p not in shared] for name, each in pictures.items()},
        missing={name: sorted(shared - each.keys()) for name, each in pictures.items()},
        unreadable=unreadable,
        doubles=doubles,
        copies=Counter(found[n][0] for n in copied),
        notes=notes,
    )
    lineup.notes.extend(_describe(lineup, prompts))
    return lineup


def _sort_files(
    name: str, files: Sequence[ImageFile], read: Mapping[Path, _Content | UnreadableImage]
) -> tuple[dict[str, Picture], dict[str, str], list[str]]:
    """Return a folder's pictures by prompt, its unreadable files and the superfluous ones."""
    pictures: dict[str, Picture] = {}
    unreadable: dict[str, str] = {}
    doubles: list[str] = []
    for file in files:
        found = read[file.path]
        if isinstance(found, UnreadableImage):
            unreadable[file.image] = printable(" ".join(found.reason.split()))
        elif file.prompt_id in pictures:
            doubles.append(file.image)
        else:
            pictures[file.prompt_id] = Picture(name, file.path, found.sha256)
    return pictures, unreadable, doubles


def _draw_photographs(
    photographs: Sequence[Picture], prompts: Sequence[str], seed: int
) -> dict[str, Picture]:
    """Draw a photograph for every prompt; each is drawn once before any is drawn again.

    A prompt prefers photographs by a hash of both, so that a further prompt or photograph
    leaves nearly all of the others as they were.
    """
    left: list[Picture] = []
    drawn: dict[str, Picture] = {}
    for prompt in prompts:
        left = left or list(photographs)
        drawn[prompt] = min(left, key=partial(_preference, seed, prompt))
        left.remove(drawn[prompt])
    return drawn


def _preference(seed: int, prompt: str, photo: Picture) -> bytes:
    text = "\0".join((str(seed), prompt, photo.sha256))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


# --- Reading -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Content:
    """The hash of a file's bytes, and that of the pixels that it decodes to."""

    sha256: str
    pixels: str


def _read_all(
    paths: Sequence[Path],
    cache: ScoreCache | None,
    max_pixels: int,
    on_read: Callable[[int, int], None] | None,
) -> dict[Path, _Content | UnreadableImage]:
    store = cache or ScoreCache(None)
    results: dict[Path, _Content | UnreadableImage] = {}
    pool = ThreadPoolExecutor(min(decoding_threads(), _THREADS), "realbench-read")
    try:
        reads = pool.map(lambda path: _read_one(path, store, max_pixels), paths)
        for done, (path, found) in enumerate(zip(paths, reads, strict=True), start=1):
            results[path] = found
            if on_read is not None:
                on_read(done, len(paths))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return results


def _read_one(path: Path, cache: ScoreCache, max_pixels: int) -> _Content | UnreadableImage:
    known = cache.known_sha256(path)
    if known and (pixels := cache.pixels(known)):
        return _Content(known, pixels)
    try:
        stat = file_stat(path)
        data, sha256 = read_bytes_and_hash(path)
        pixels = cache.pixels(sha256)
        if not pixels:
            pixels = pixel_digest(decode(data, max_pixels=max_pixels))
            cache.put_pixels(sha256, pixels)
        cache.put_file(path, stat, sha256)
    except UnreadableImage as error:
        return error
    return _Content(sha256, pixels)


# --- What the user should know -----------------------------------------------------------------


def _nothing_shared(pictures: Mapping[str, Mapping[str, Picture]]) -> str:
    (one, ids), (two, others) = list(pictures.items())[:2]
    return (
        "no two folders share a prompt id, which is a file's name without its ending: "
        f"{one} has {_few(list(ids))}, {two} has {_few(list(others))}; name the files by prompt"
    )


def _describe(lineup: Lineup, prompts: Mapping[str, Prompt] | None) -> list[str]:
    notes = []
    if lineup.stand_ins:
        ids, photos = lineup.prompts, lineup.reference
        used = len(
            {lineup.pictures[name, p].sha256 for name, p in lineup.pictures if name == photos}
        )
        notes.append(
            f"{photos} has prompt ids of its own: for each of the {len(ids)} prompts one of its "
            f"photographs was drawn ({used} of {lineup.n_images[photos or '']} are used), and "
            "judges see these pairs without the prompt"
        )
    for name in lineup.contestants:
        notes += _contestant_notes(lineup, name)
    unnamed = [prompt for prompt in lineup.prompts if prompts and prompt not in prompts]
    if unnamed:
        notes.append(f"the prompts file does not name {_few(unnamed)}: judged without a text")
    return notes


def _contestant_notes(lineup: Lineup, name: str) -> list[str]:
    bad, doubles = lineup.unreadable[name], lineup.doubles[name]
    dropped, missing = lineup.dropped[name], lineup.missing[name]
    notes = []
    if bad:
        first, why = next(iter(bad.items()))
        more = f", and {len(bad) - 1} more (see run.json)" if len(bad) > 1 else ""
        notes.append(f"unreadable: {name}/{first}: {why}{more}")
    if doubles:
        notes.append(
            f"{name}: {len(doubles)} files of a prompt that another of its files has already "
            f"are left out ({_few(doubles)})"
        )
    if dropped:
        notes.append(f"{name}: {len(dropped)} prompts that no other has ({_few(dropped)})")
    if missing and len(missing) == len(lineup.prompts):
        notes.append(f"{name} shares no prompt with another contestant and is not compared")
    elif missing:
        notes.append(
            f"{name} lacks {len(missing)} of the {len(lineup.prompts)} shared prompts "
            f"({_few(missing)}): its pairs are compared on the rest"
        )
    return notes


def _few(names: Sequence[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
