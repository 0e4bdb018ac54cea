"""Verifies the arena's part of entries: counts, figures, and what two entries say of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from realbench.leaderboard.board import Board
from realbench.leaderboard.figures import WRITE_AGAIN, estimate_problems, letters_of, win_rate
from realbench.leaderboard.names import slug
from realbench.leaderboard.schema import ArenaScores, Entry

_MIRROR = {"W": "L", "L": "W", "T": "T", "-": "-"}


def coverage_problems(
    board: Board, prompts: set[str], least: int, what: str, more: str
) -> Iterator[str]:
    """Yield what is wrong with the prompts that an entry has: unknown ones, or too few."""
    unknown = sorted(prompts - set(board.suite.prompts))
    if unknown:
        yield (
            f"{what}: {len(unknown)} prompt ids are not in the suite, such as {unknown[0]!r}: name "
            "the images after the suite's prompt ids"
        )
    known = len(prompts) - len(unknown)
    if known < least:
        yield f"{what}: {known} of the suite's prompts, the board asks for {least}: {more}"


def arena_problems(board: Board, entry: Entry, is_anchor: bool) -> Iterator[str]:
    """Yield what is wrong with an entry's arena as ``what: what to do``."""
    arena = entry.arena_scoring
    if arena is None:
        return
    yield from _judge_problems(board, arena)
    if len(set(arena.prompts)) < len(arena.prompts) or len(arena.images) != len(arena.prompts):
        yield f"arena: prompts come twice, or not each has one image: {WRITE_AGAIN}"
        return
    least = 0 if is_anchor else board.settings.suite.min_prompts
    yield from coverage_problems(board, set(arena.prompts), least, "arena", "compare more")
    if any(len(letters) != len(arena.prompts) for letters in arena.opponents.values()):
        yield f"arena: opponents need a letter for each prompt: {WRITE_AGAIN}"
        return
    opponents = [slug(name) for name in arena.opponents]
    is_own = arena.contestant in arena.opponents or slug(entry.model.name) in opponents
    if is_own or len(set(opponents)) < len(opponents):
        yield f"arena: the model meets itself, or an opponent comes twice: {WRITE_AGAIN}"
    if len(set(arena.images)) < len(arena.images) and not is_anchor:
        yield f"arena: one image comes for several prompts, but counts once: {WRITE_AGAIN}"
    yield from _count_problems(board, arena)
    yield from _image_problems(entry, arena, is_anchor)


def _judge_problems(board: Board, arena: ArenaScores) -> Iterator[str]:
    wanted = board.settings.judge
    if wanted is None:
        yield "arena: the board has no judge: remove arena_scoring"
        return
    if arena.judge != wanted.name:
        yield f"arena: judge {arena.judge!r}, the board has {wanted.name!r}: ask the board's judge"
    if arena.judge_fingerprint not in wanted.fingerprints:
        yield (
            f"arena: judge fingerprint {arena.judge_fingerprint[:12]}…, the board takes "
            f"{wanted.fingerprints[0][:12]}…: ask the board's judge with its settings"
        )
    if arena.template_sha256 != wanted.template_sha256:
        shown = [
            f"{one[:12]}…" if one else "none"
            for one in (arena.template_sha256, wanted.template_sha256)
        ]
        yield f"arena: template {shown[0]}, the board has {shown[1]}: use the board's template"


def _count_problems(board: Board, arena: ArenaScores) -> Iterator[str]:
    counts = letters_of(arena.opponents)
    for key, letter in (("wins", "W"), ("ties", "T"), ("losses", "L")):
        stated = getattr(arena, key)
        if stated != counts[letter]:
            yield f"arena: {key} is {stated}, but opponents give {counts[letter]}: {WRITE_AGAIN}"
    again = win_rate(arena.opponents, arena.prompts, board.settings.seed)
    yield from estimate_problems("arena: win_rate", arena.win_rate, again)


def _image_problems(entry: Entry, arena: ArenaScores, is_anchor: bool) -> Iterator[str]:
    """The judge must have seen the images that the detectors scored."""
    if entry.detector_scoring is None or is_anchor:
        return
    scored = {image[:2] for image in entry.detector_scoring.images}
    other = [pair for pair in zip(arena.prompts, arena.images, strict=True) if pair not in scored]
    if other:
        yield (
            f"arena: the image of prompt {other[0][0]!r} is not the one that was scored: score and "
            "compare the same images"
        )


def contradictions(entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield where two entries tell one arena differently, once for a pair.

    Args:
        entries: by place, such as ``results/x.json``.
    """
    claims: dict[tuple[str, str], list[str]] = {}
    for place, entry in entries.items():
        if entry.arena_scoring is not None:
            key = (entry.arena_scoring.run, entry.arena_scoring.contestant)
            claims.setdefault(key, []).append(place)
    shared = {place for places in claims.values() if len(places) > 1 for place in places}
    for (_, contestant), places in claims.items():
        if len(places) > 1:
            yield (
                f"{places[0]}: arena: it and {places[1]} are both {contestant!r} of one arena: "
                "remove one"
            )
    # Of two that claim one contestant's results, neither is held against the others.
    sole = {place: entry for place, entry in entries.items() if place not in shared}
    told = told_results(sole)
    for (place, one), (other_place, other) in combinations(sole.items(), 2):
        arena, theirs = one.arena_scoring, other.arena_scoring
        if arena is None or theirs is None or arena.run != theirs.run:
            continue
        letters = told[place].get(other_place, {})
        mirrored = {k: _MIRROR[v] for k, v in told[other_place].get(place, {}).items()}
        odd = sorted(k for k in {*letters, *mirrored} if letters.get(k) != mirrored.get(k))
        if odd:
            yield (
                f"{place}: arena: it and {other_place} tell their result on prompt {odd[0]!r} "
                "differently: write both entries again from the same run"
            )


def told_results(entries: Mapping[str, Entry]) -> dict[str, dict[str, dict[str, str]]]:
    """Return what entries tell of each other: letters (W, T, L) by prompt id.

    An opponent is the entry that was in the same arena under that name, else the one whose model
    is called so; others have no entry, and are left out.

    Args:
        entries: by any key, such as their places.

    Returns:
        By the key of an entry and that of its opponent.
    """
    by_contestant = {
        (one.arena_scoring.run, one.arena_scoring.contestant): key
        for key, one in entries.items()
        if one.arena_scoring is not None
    }
    by_slug = {slug(one.model.name): key for key, one in entries.items()}
    found: dict[str, dict[str, dict[str, str]]] = {key: {} for key in entries}
    for key, entry in entries.items():
        arena = entry.arena_scoring
        for name, letters in arena.opponents.items() if arena else ():
            assert arena is not None
            other = by_contestant.get((arena.run, name)) or by_slug.get(slug(name))
            if other is not None and other != key:
                pairs = zip(arena.prompts, letters, strict=False)
                found[key][other] = {prompt: one for prompt, one in pairs if one != "-"}
    return found
