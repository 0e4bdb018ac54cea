"""Verifies a board: every entry follows from its own data and was made as the board asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from realbench.errors import RealBenchError, UsageError
from realbench.leaderboard.arena_checks import arena_problems, contradictions, coverage_problems
from realbench.leaderboard.board import ANCHORS, BOARD_FILE, RESULTS, Board, BoardAnchor
from realbench.leaderboard.figures import (
    WRITE_AGAIN,
    detector_figures,
    estimate_problems,
    possible_realism,
    unpack_features,
)
from realbench.leaderboard.names import skeletons, slug
from realbench.leaderboard.schema import (
    CrossFit,
    DetectorScores,
    Entry,
    EntryError,
    Estimate,
    Fused,
    parse_entry,
)
from realbench.text import printable

LARGEST = 8_000_000  # bytes of an entry's file


@dataclass(frozen=True)
class Verified:
    """A board's entries that could be read, and all that is wrong.

    Attributes:
        board: the board.
        entries: by slug, those under ``results/``.
        anchors: by slug, those under ``anchors/``.
        violations: one line each, ``results/x.json: what: what to do``.
    """

    board: Board
    entries: dict[str, Entry] = field(default_factory=dict)
    anchors: dict[str, Entry] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def verify_board(board: Board) -> Verified:
    """Verify all files of a board's ``results`` and ``anchors``.

    Raises:
        RealBenchError: the board itself cannot be used.
    """
    found = Verified(board)
    n_prompts, least = len(board.suite.prompts), board.settings.suite.min_prompts
    if least > n_prompts:
        found.violations.append(
            f"{BOARD_FILE}: min_prompts is {least}, but the suite has {n_prompts}: lower it"
        )
    for folder, entries in ((RESULTS, found.entries), (ANCHORS, found.anchors)):
        for place, path in _files(board.path / folder, folder, found.violations):
            try:
                entry = read_entry(path)
            except EntryError as error:
                found.violations.extend(f"{place}: {problem}" for problem in error.problems)
                continue
            entries[path.name.removesuffix(".json")] = entry
            problems = entry_problems(board, entry, path.name, is_anchor=folder == ANCHORS)
            found.violations.extend(f"{place}: {problem}" for problem in problems)
    for name in board.anchor_slugs:
        if name not in found.anchors:
            found.violations.append(
                f"{ANCHORS}/{name}.json: missing: write it with realbench leaderboard add --anchor"
            )
    found.violations.extend(_across(found))
    return found


def read_entry(path: Path) -> Entry:
    """Read an entry's file.

    Raises:
        EntryError: it cannot be read, is too large or is no entry.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise EntryError([f"larger than {LARGEST // 1_000_000} MB: {WRITE_AGAIN}"])
        data = path.read_bytes()
    except OSError as error:
        raise EntryError([f"cannot be read ({error.strerror}): {WRITE_AGAIN}"]) from error
    return parse_entry(data)


def _files(folder: Path, name: str, violations: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files of entries, in order; what else lies there is a violation."""
    if folder.is_symlink():
        violations.append(f"{name}: is a link: make it a folder")
        return
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        place = f"{name}/{printable(path.name)}"
        if path.name == ".gitkeep":
            continue
        if path.is_symlink() or not path.is_file():
            violations.append(f"{place}: is no plain file: remove it")
        elif not path.name.endswith(".json"):
            violations.append(f"{place}: is no entry (.json): remove it")
        else:
            yield place, path


# --- One entry ---------------------------------------------------------------------------------


def entry_problems(
    board: Board, entry: Entry, file: str, *, is_anchor: bool = False
) -> Iterator[str]:
    """Yield what is wrong with an entry as ``what: what to do``.

    Args:
        board: where it stands.
        entry: as it was read.
        file: the name of its file.
        is_anchor: whether it is one of the board's anchors, whose prompts are their own.
    """
    wanted = f"{slug(entry.model.name)}.json"
    if file != wanted:
        yield f"the model {entry.model.name!r} belongs into {wanted}: rename the file"
    if is_anchor and wanted.removesuffix(".json") not in board.anchor_slugs:
        yield f"the board has no anchor {entry.model.name!r}: name it in board.toml, or remove it"
    suite = board.settings.suite
    if (entry.suite.name, entry.suite.sha256) != (suite.name, suite.sha256):
        yield (
            f"suite {entry.suite.name!r} with hash {entry.suite.sha256[:12]}…, the board's is "
            f"{suite.name!r} with {suite.sha256[:12]}…: make the images from the board's suite"
        )
    if board.settings.detectors and entry.detector_scoring is None:
        yield f"no detector_scoring: {WRITE_AGAIN}, naming a score run"
    if entry.detector_scoring is not None:
        anchor = board.anchor_slugs.get(slug(entry.model.name)) if is_anchor else None
        yield from _scoring_problems(board, entry.detector_scoring, anchor, is_anchor)
    if entry.arena_scoring is not None:
        yield from arena_problems(board, entry, is_anchor)
    elif board.settings.rank_by == "arena" and not is_anchor:
        yield f"no arena_scoring, by which the board ranks: {WRITE_AGAIN}, naming an arena run"


def _scoring_problems(
    board: Board, scores: DetectorScores, anchor: BoardAnchor | None, is_anchor: bool
) -> Iterator[str]:
    yield from _detector_problems(board, scores)
    if scores.cross_fit is not None:
        yield from _cross_fit_problems(board, scores, scores.cross_fit, anchor)
    names = [one.name for one in scores.detectors]
    if any(len(image[3]) != len(names) for image in scores.images):
        yield f"images: not every image has {len(names)} detectors' scores: {WRITE_AGAIN}"
        return
    if len(set(names)) < len(names):
        yield f"detectors: one comes twice: {WRITE_AGAIN}"
        return
    if len({image[1] for image in scores.images}) < len(scores.images):
        yield f"images: one image comes twice, but counts once: {WRITE_AGAIN}"
    prompts = {image[0] for image in scores.images}
    if not is_anchor:
        least = board.settings.suite.min_prompts
        yield from coverage_problems(board, prompts, least, "images", "make more images")
    yield from _feature_problems(board, scores)
    low, high = possible_realism(scores)
    for image, lowest, highest in zip(scores.images, low, high, strict=True):
        if not lowest <= image[2] <= highest:
            yield (
                f"images: realism {image[2]} of prompt {image[0]!r} does not follow from its "
                f"detectors' scores ({(lowest + highest) / 2:.6f}): {WRITE_AGAIN}"
            )
            break
    yield from _figure_problems(board, scores, names, is_anchor)


def _detector_problems(board: Board, scores: DetectorScores) -> Iterator[str]:
    wanted = {one.name: one for one in board.settings.detectors}
    if {one.name for one in scores.detectors} != set(wanted):
        found = ", ".join(one.name for one in scores.detectors)
        yield f"detectors {found}, the board has {', '.join(wanted)}: score with the board's"
    for used in scores.detectors:
        known = wanted.get(used.name)
        if known is None:
            continue
        if used.fingerprint not in known.fingerprints:
            yield (
                f"{used.name}: fingerprint {used.fingerprint[:12]}…, the board takes "
                f"{_few(known.fingerprints)}: score with the board's version of the detector"
            )
        if used.level != known.level:
            yield f"{used.name}: level {used.level}, the board has {known.level}: {WRITE_AGAIN}"
        if used.fused != known.fused:
            yield (
                f"{used.name}: {_part(used.fused)}, the board has {_part(known.fused)}: score with "
                "the board's ensemble"
            )
    sets = [
        {n for n, one in enumerate(known.fingerprints) if one == used.fingerprint}
        for used in scores.detectors
        if (known := wanted.get(used.name)) is not None
    ]
    if all(sets) and sets and not set.intersection(*sets):
        yield (
            "detectors: their fingerprints are of different sets, such as two folds: score with "
            "the detectors of one"
        )


def _part(fused: Fused | None) -> str:
    if fused is None:
        return "no weight of a fused ensemble"
    return f"weight {fused.weight:g} and offset {fused.offset:g} in a fused ensemble"


def _cross_fit_problems(
    board: Board, scores: DetectorScores, used: CrossFit, anchor: BoardAnchor | None
) -> Iterator[str]:
    """Only an anchor may mix sets of detectors, where the board says so, and only the board's."""
    if anchor is None or not anchor.cross_fit:
        yield (
            "cross_fit: several sets of detectors scored its images, which only an anchor may "
            "have that board.toml gives cross_fit = true: score all with one set"
        )
        return
    prints = {one.name: one.fingerprints for one in board.settings.detectors}
    known = set(zip(*(prints.get(one.name, []) for one in scores.detectors), strict=False))
    for one in used.sets:
        if tuple(one) not in known:
            shown = ", ".join(f"{part[:12]}…" for part in one)
            yield (
                f"cross_fit: {shown} is no set of the board's detectors: score with the detectors "
                "of the board's folds"
            )
    if used.sets[0] != [one.fingerprint for one in scores.detectors]:
        yield f"cross_fit: the first set is not that of detectors: {WRITE_AGAIN}"
    indices = set(used.set_of_image)
    if len(used.set_of_image) != len(scores.images) or indices != set(range(len(used.sets))):
        yield (
            "cross_fit: set_of_image does not give each image a set, and each set an image: "
            f"{WRITE_AGAIN}"
        )
    if len({tuple(one) for one in used.sets}) < len(used.sets):
        yield f"cross_fit: a set comes twice: {WRITE_AGAIN}"


def _feature_problems(board: Board, scores: DetectorScores) -> Iterator[str]:
    """Distances follow from an entry's features, which must be whole and of the board's network."""
    wanted, features = board.settings.features, scores.features
    if features is None:
        return
    if wanted is None or (features.name, features.fingerprint) != (wanted.name, wanted.fingerprint):
        board_has = f"{wanted.name} {wanted.fingerprint[:12]}…" if wanted else "none"
        yield (
            f"features: {features.name} {features.fingerprint[:12]}…, the board has {board_has}: "
            f"score with the board's version and options, and {WRITE_AGAIN}"
        )
        return
    if len(features.vectors) != len(scores.images):
        yield f"features: {len(features.vectors)} of {len(scores.images)} images: {WRITE_AGAIN}"
    try:
        unpack_features(features.vectors, wanted.size)
    except ValueError as error:
        yield f"features: {error}: {WRITE_AGAIN}"


def _few(fingerprints: Iterable[str]) -> str:
    first = [f"{one[:12]}…" for one in fingerprints]
    return " or ".join(first[:3]) + (f" or {len(first) - 3} more" if len(first) > 3 else "")


def _figure_problems(
    board: Board, scores: DetectorScores, names: list[str], is_anchor: bool
) -> Iterator[str]:
    prompts = {} if is_anchor else board.suite.prompts
    category_of = {key: prompt.category for key, prompt in prompts.items()}
    again = detector_figures(scores.images, names, category_of, board.settings.seed)
    for key, figure in again.items():
        stated = getattr(scores, key)
        if isinstance(figure, Estimate):
            yield from estimate_problems(key, stated, figure)
            continue
        if set(stated) != set(figure):
            odd = sorted(set(stated) ^ set(figure))[0]
            yield f"{key}: {odd!r} is stated or found in the images, not both: {WRITE_AGAIN}"
        for name in figure:
            if name in stated:
                yield from estimate_problems(f"{key}.{name}", stated[name], figure[name])


# --- Entries beside each other -----------------------------------------------------------------


def _across(found: Verified) -> Iterator[str]:
    every = {f"{RESULTS}/{printable(key)}.json": one for key, one in found.entries.items()}
    every |= {f"{ANCHORS}/{printable(key)}.json": one for key, one in found.anchors.items()}
    yield from _same_names(every)
    yield from _same_images(every)
    yield from _photographs(found)
    yield from contradictions(every)


def _same_names(entries: Mapping[str, Entry]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for place, entry in entries.items():
        keys = sorted(skeletons(entry.model.name))
        other = next((seen[key] for key in keys if key in seen), None)
        if other is not None:
            yield (
                f"{place}: duplicate: the name {entry.model.name!r} reads like that of "
                f"{other}: give it another name, or remove one"
            )
        for key in keys:
            seen.setdefault(key, place)


def _same_images(entries: Mapping[str, Entry]) -> Iterator[str]:
    """Two entries of the same image files are one entry."""
    seen: dict[str, str] = {}
    for place, entry in entries.items():
        digests = image_digests(entry)
        shared = [seen[one] for one in digests if one in seen]
        if len(shared) > len(digests) / 2:
            yield (
                f"{place}: duplicate: {len(shared)} of its {len(digests)} images are those of "
                f"{shared[0]}: enter a model once"
            )
        for digest in digests:
            seen.setdefault(digest, place)


def _photographs(found: Verified) -> Iterator[str]:
    """What is an anchor's photograph is no model's image."""
    for anchor, photographs in found.anchors.items():
        known = image_digests(photographs)
        for name, entry in found.entries.items():
            n = len(image_digests(entry) & known)
            if n:
                yield (
                    f"{RESULTS}/{printable(name)}.json: {n} of its images are also "
                    f"images of the anchor {printable(anchor)}: score the model's own images alone"
                )


def image_digests(entry: Entry) -> set[str]:
    """The first digits of the SHA-256 of an entry's images."""
    digests: set[str] = set()
    if entry.detector_scoring is not None:
        digests |= {image[1] for image in entry.detector_scoring.images}
    if entry.arena_scoring is not None:
        digests |= set(entry.arena_scoring.images)
    return digests


def check_name(board: Board, entry: Entry, path: Path) -> None:
    """Refuse an entry whose name is like that of another model of the board.

    Args:
        board: where it is to stand.
        entry: it.
        path: its file, which may hold an earlier entry of the same name.

    Raises:
        UsageError: it is; the message names the other.
    """
    name = entry.model.name
    for folder in (RESULTS, ANCHORS):
        for _, other in _files(board.path / folder, folder, []):
            try:
                known = read_entry(other).model.name
            except EntryError:  # verify tells of it
                continue
            if other == path and known == name:
                continue
            if other == path or not skeletons(known).isdisjoint(skeletons(name)):
                raise UsageError(
                    f"{printable(other)} is the entry of another model, {known!r}, which reads "
                    f"like {name!r}: give this model another name, or that name to replace it"
                )


def require_valid(found: Verified) -> None:
    """Raise where a board has violations.

    Raises:
        RealBenchError: it has; the message has the first.
    """
    if found.violations:
        more = len(found.violations) - 1
        rest = f" (and {more} more; see realbench leaderboard verify)" if more else ""
        raise RealBenchError(
            f"{printable(found.board.path)} cannot be built: {found.violations[0]}{rest}"
        )
