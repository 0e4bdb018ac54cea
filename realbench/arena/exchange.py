"""Votes of other arenas become a run, and a run's comparisons a file that other tools read."""

from __future__ import annotations

import csv
import hashlib
import io
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from realbench.arena.judges.judge import Verdict
from realbench.arena.records import (
    MANIFEST_FORMAT,
    ArenaManifest,
    ContestantUsed,
    read_manifest,
    without_credentials,
    write_manifest,
)
from realbench.arena.results import ArenaRun, comparisons_of, counted_votes, rate_run, verify_run
from realbench.arena.vote_log import write_log
from realbench.arena.votes import CROWD, Vote
from realbench.errors import UsageError
from realbench.prompt_import import read_rows
from realbench.runs.files import output_folder
from realbench.runs.folder import installed_versions, now, package_versions
from realbench.text import cell, printable

IMPORTED = "imported"
"""The judge of votes that name none."""

MOST_JUDGES = 20
"""Judges that are rated one by one; more are a crowd."""


@dataclass(frozen=True, slots=True)
class VoteColumns:
    """Which columns of a file of votes hold what; None looks for one of :data:`KNOWN`.

    Attributes:
        model_a, model_b: The two contestants, as they were shown.
        winner: ``model_a``, ``left``, ``a`` and the like, ``tie`` and the like, or the winner's
            name.
        tie: Whether a row is a tie, whatever the winner says.
        judge: Who voted.
        prompt: The prompt's id; without it each row is a prompt of its own.
    """

    model_a: str | None = None
    model_b: str | None = None
    winner: str | None = None
    tie: str | None = None
    judge: str | None = None
    prompt: str | None = None


KNOWN = {
    "model_a": ("model_a", "left", "model_1", "model_x"),
    "model_b": ("model_b", "right", "model_2", "model_y"),
    "winner": ("winner",),
    "tie": ("tie", "winner_tie"),
    "judge": ("judge", "rater", "annotator", "worker"),
    "prompt": ("prompt_id", "question_id"),
    "won_a": ("winner_model_a",),  # the form with a column for each result
    "won_b": ("winner_model_b",),
}
"""What each column may be called, in any case; the first of these."""

_FIRST = {"model_a", "a", "left", "model_1", "model_x", "x", "first"}
_SECOND = {"model_b", "b", "right", "model_2", "model_y", "y", "second"}
_TIE = {"tie", "draw", "both_bad", "both_good", "bothbad", "tie (bothbad)", "tie (both_bad)"}
_YES, _NO = {"1", "1.0", "true", "yes"}, {"", "0", "0.0", "false", "no"}


def import_votes(
    source: str | Path,
    out: str | Path,
    *,
    columns: VoteColumns = VoteColumns(),
    judge: str | None = None,
    reference: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> ArenaRun:
    """Make a run of another arena's votes, and rate it.

    Every row is a vote, and every vote counts, also where one judge voted on a pair again. A row
    without a winner is left out. There are no pictures.

    Args:
        source: A file of CSV, TSV, JSONL, JSON or Parquet.
        out: A folder without votes.
        columns: What its columns are called, where that cannot be told.
        judge: Whose all the votes are, whatever the file says; ``"human"`` makes them people's.
        reference: The contestant that is photographs, if there is one.
        resamples, seed: Of the bootstrap over prompts.

    Raises:
        UsageError: the file cannot be read or a row of it is no vote (the message names it), a
            column or the reference is missing, or there are more judges than can be compared.
        RealBenchError: a package is missing, or files cannot be written.
    """
    path, target = Path(source), output_folder(out)
    shown = printable(path)
    votes, n_empty = read_votes(path, columns, judge)
    names = sorted({name for vote in votes for name in (vote.first, vote.second)})
    if reference is not None and reference not in names:
        raise UsageError(f"{shown} has no contestant {reference!r}: name one of its own")
    names.sort(key=lambda name: name == reference)
    prints = {vote.judge: vote.judge_fingerprint for vote in votes}
    if len(prints) > MOST_JUDGES:
        raise UsageError(
            f"{shown} has the votes of {len(prints):,} judges, of whom at most {MOST_JUDGES} can "
            "be rated one by one: give --judge human to take them all as people's, or another name"
        )
    prompts = dict.fromkeys(vote.prompt_id for vote in votes)
    own = ", each with a prompt of its own" if len(prompts) == len(votes) else ""
    notes = [f"{len(votes):,} votes imported from {shown}{own}; no pictures"]
    notes += [f"{n_empty:,} rows without a winner are left out"] if n_empty else []
    manifest: ArenaManifest = {
        "arena_format": MANIFEST_FORMAT,
        "versions": package_versions() | installed_versions(("evalica", "trueskill")),
        "platform": platform.platform(),
        "arguments": {"imported": shown},
        "argv": [without_credentials(printable(part)) for part in sys.argv],
        "suite": None,
        "schedule": IMPORTED,
        "seed": seed,
        "resamples": resamples,
        "contestants": [_contestant(name, path, name == reference) for name in names],
        "reference": reference,
        "prompts": {"shared": len(prompts), "dropped": {}, "missing": {}, "texts": prompts},
        "judges": {
            name: {"fingerprint": fingerprint, "orders": CROWD, "is_vlm": True}
            for name, fingerprint in sorted(prints.items())
        },
        "notes": notes,
        "started": now(),
        "finished": now(),
        "stop_reason": None,
        "counts": {"votes": len(votes), "invalid": 0},
        "votes_log": write_log(target, votes).model_dump(),
    }
    write_manifest(target, manifest)
    return rate_run(target)


def read_votes(
    path: Path, columns: VoteColumns = VoteColumns(), judge: str | None = None
) -> tuple[list[Vote], int]:
    """Return the votes of a file, and how many of its rows had no winner.

    Arguments and errors are those of :func:`import_votes`.
    """
    shown, time = printable(path), datetime.now(UTC)
    rows = read_rows(path, lambda present: list(_choose(present, columns, shown).values()))
    column = _choose(rows.columns, columns, shown)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    votes: list[Vote] = []
    n_empty = 0
    for index, row in rows.rows:
        told = {field: _text(row.get(name)) for field, name in column.items()}
        where = f"{shown}, {rows.unit} {index + 1}"
        first, second = told["model_a"], told["model_b"]
        if not first or not second or first == second:
            raise UsageError(f"{where}: {first!r} and {second!r} are no two models: mend the row")
        verdict = _verdict(told, where)
        if verdict is None:
            n_empty += 1
            continue
        prompt = told.get("prompt") or f"{digest[:8]}-{index + 1:06}"
        who = judge or told.get("judge") or IMPORTED
        votes.append(
            Vote(
                id=f"{digest}-{index + 1}",
                judge=who,
                judge_fingerprint=_digest(IMPORTED, who),
                prompt_id=prompt,
                first=first,
                second=second,
                # There are no pictures: these stand for what cannot be seen any more.
                first_sha256=_digest("no picture", first, prompt),
                second_sha256=_digest("no picture", second, prompt),
                verdict=verdict,
                time=time,
            )
        )
    if not votes:
        raise UsageError(f"{shown} holds no votes")
    return votes, n_empty


def _choose(present: Sequence[str], asked: VoteColumns, source: str) -> dict[str, str]:
    """Return the column of each field, as far as there is one."""
    found: dict[str, str] = {}
    folded = {str(name).casefold(): name for name in reversed(present)}
    for field, names in KNOWN.items():
        named = getattr(asked, field, None)
        if named is not None and named not in present:
            raise UsageError(
                f"{source} has no column {named!r}; its columns are "
                f"{printable(', '.join(map(str, present))) or 'none'}"
            )
        column = named or next((folded[name] for name in names if name in folded), None)
        if column is not None:
            found[field] = column
    for field in ("model_a", "model_b", "winner"):
        if field not in found and not (field == "winner" and {"won_a", "won_b"} <= set(found)):
            raise UsageError(
                f"{source} has no column {' or '.join(KNOWN[field])!r}; its columns are "
                f"{printable(', '.join(map(str, present))) or 'none'}: name one with "
                f"--{field.replace('_', '-')}-column"
            )
    return found


def _verdict(told: Mapping[str, str], where: str) -> Verdict | None:
    """Return what a row says; None where it names no winner."""
    for field, verdict in (("tie", "tie"), ("won_a", "first"), ("won_b", "second")):
        value = told.get(field, "").casefold()
        if value not in _YES | _NO:
            raise UsageError(f"{where}: {value!r} in the column of {field} is neither 1 nor 0")
        if value in _YES:
            return verdict  # type: ignore[return-value]
    winner = told.get("winner", "")
    if winner in (told["model_a"], told["model_b"]):
        return "first" if winner == told["model_a"] else "second"
    words: tuple[tuple[set[str], Verdict], ...] = (
        (_FIRST, "first"),
        (_SECOND, "second"),
        (_TIE, "tie"),
    )
    for known, verdict in words:
        if winner.casefold() in known:
            return verdict
    if not winner:
        return None
    raise UsageError(
        f"{where}: the winner {winner!r} is neither model, nor a word such as model_a, left or tie"
    )


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()


def _digest(*parts: str) -> str:
    text = "\0".join(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _contestant(name: str, source: Path, is_reference: bool) -> ContestantUsed:
    return {
        "name": name,
        "folder": printable(source),
        "path": printable(source.absolute()),
        "n_images": 0,
        "is_reference": is_reference,
        "unreadable": {},
        "doubles": [],
        "stands_in": {},
    }


# --- Out ---------------------------------------------------------------------------------------

ExportFormat = Literal["evalica", "arena-rank"]
_WORDS: dict[str, tuple[str, str, dict[float, str]]] = {
    "evalica": ("left", "right", {1.0: "left", 0.5: "tie", 0.0: "right"}),
    "arena-rank": ("model_a", "model_b", {1.0: "model_a", 0.5: "tie", 0.0: "model_b"}),
}


def export_comparisons(run: str | Path, format: ExportFormat, judge: str | None = None) -> bytes:
    """Return a run's comparisons as a CSV file, in the order of judge, prompt and pair.

    A row is what the ratings are made of: the result of a pair on a prompt, of both orders where
    its judge was asked in both. Columns beyond the three that the tools need tell judge and prompt.

    Args:
        run: The folder that ``--out`` named.
        format: ``"evalica"``: left, right, winner; ``"arena-rank"``: model_a, model_b, winner.
        judge: Whose alone; all judges' by default.

    Raises:
        UsageError: no arena ran in the folder, or without such a judge.
        RealBenchError: its files are damaged.
    """
    manifest = read_manifest(Path(run))
    if judge is not None and judge not in manifest["judges"]:
        known = ", ".join(map(printable, manifest["judges"]))
        raise UsageError(f"{printable(run)} has no judge {judge!r}: name one of {known}")
    votes = counted_votes(verify_run(run).votes, manifest, judge)
    first, second, words = _WORDS[format]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([first, second, "winner", "judge", "prompt_id"])
    for one in comparisons_of(votes, manifest["judges"]):
        names = (one.a, one.b, words[one.score], one.judge, one.prompt_id)
        writer.writerow([cell(name) for name in names])
    return text.getvalue().encode("utf-8", "surrogateescape")
