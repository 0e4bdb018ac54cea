"""The result of an arena, and the folder that holds it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from realbench.arena.records import (
    AGAIN,
    MISSING,
    ArenaManifest,
    JudgeUsed,
    Ratings,
    read_manifest,
    seal_of,
    write_manifest,
)
from realbench.arena.vote_log import VOTES_FILE, LogContents, accept_edits, read_log
from realbench.arena.votes import Comparison, Vote, compare
from realbench.errors import UsageError
from realbench.images import find_images
from realbench.runs.files import checked, json_bytes, make_folder, output_folder, write_atomically
from realbench.runs.folder import read_record
from realbench.text import cell, printable

if TYPE_CHECKING:
    import pandas as pd

RATINGS_FILE = "ratings.json"
_COUNTS = ("n_comparisons", "n_prompts", "wins", "ties", "losses")
_TEXTS = ("judge", "contestant")
_ESTIMATES = ("win_rate", "bradley_terry", "elo", "trueskill", "win_rate_vs_reference")
_COLUMNS = (
    *(*_TEXTS, "rank", "rank_low", "rank_high", *_COUNTS),
    *(column for name in _ESTIMATES for column in (name, f"{name}_low", f"{name}_high")),
)


@dataclass(repr=False)
class ArenaRun:
    """The result of an arena.

    Attributes:
        ratings: As in ``ratings.json``.
        votes: The votes that count and the invalid answers, in their order.
        manifest: What was run, as in ``run.json``.
        pictures: Where each (contestant, prompt id) lies.
        prompts: Each shared prompt's text, None where no suite names it.
        contestants: Names, in the order of the folders, the reference last.
        reference: The photographs' name, if there are any.
        out: The run's folder, None where it was not kept.
    """

    ratings: Ratings
    votes: list[Vote]
    manifest: ArenaManifest
    pictures: dict[tuple[str, str], Path]
    prompts: dict[str, str | None]
    contestants: list[str]
    reference: str | None
    out: Path | None

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the run that ``realbench arena --out`` wrote to a folder, as it was rated then.

        Raises:
            UsageError: no arena ran there.
            RealBenchError: a file of it is damaged.
        """
        run = Path(folder)
        manifest = read_manifest(run)
        ratings = read_record(run / RATINGS_FILE, Ratings, missing=MISSING, mend=AGAIN)
        return cls.of(run, manifest, counted_votes(verify_run(run).votes, manifest), ratings)

    @classmethod
    def of(cls, folder: Path, manifest: ArenaManifest, votes: list[Vote], ratings: Ratings) -> Self:
        """Return the run of a folder; pictures are looked for where they were."""
        return cls(
            ratings=ratings,
            votes=votes,
            manifest=manifest,
            pictures=_find_pictures(manifest),
            prompts=dict(manifest["prompts"]["texts"]),
            contestants=[entry["name"] for entry in manifest["contestants"]],
            reference=manifest["reference"],
            out=folder,
        )

    def __repr__(self) -> str:
        return self.standings.to_string()

    def _repr_html_(self) -> str:
        return self.standings.to_html()

    @property
    def standings(self) -> pd.DataFrame:
        """A row per judge and contestant, best first, with the columns of ``ratings.csv``."""
        import pandas as pd

        return pd.DataFrame(_rows(self.ratings))

    @property
    def stop_reason(self) -> str | None:
        """Why no more was asked: ``"complete"``, ``"max-votes"`` and so on; None if merged."""
        return self.manifest["stop_reason"]

    @property
    def pairs_open(self) -> int:
        """How many pairs have no result yet, summed over prompts and judges; 0 if merged."""
        return int(self.manifest["counts"].get("pairs_open", 0))

    def write(self, out: str | Path) -> Path:
        """Write ``ratings.csv``, ``ratings.json``, ``run.json`` and ``report.html`` to ``out``.

        Each file appears whole or not at all; the folder is made where it is missing.

        Raises:
            RealBenchError: a file cannot be written; the message names it.
        """
        folder = output_folder(out)
        make_folder(folder)
        write_manifest(folder, self.manifest)
        _write_ratings(self, folder)
        return folder


def _write_ratings(run: ArenaRun, folder: Path) -> None:
    from realbench.arena.report.report import write_arena_report

    write_atomically(folder / "ratings.csv", ratings_csv(run.ratings))
    write_atomically(folder / RATINGS_FILE, json_bytes(run.ratings))
    checked(folder / "report.html", lambda: write_arena_report(run, folder))


def ratings_csv(ratings: Ratings) -> bytes:
    """Return the ratings as the bytes of ``ratings.csv``, a row per judge and contestant.

    Estimates have their interval in ``<name>_low`` and ``<name>_high``; the combined rating of
    several judges comes last, as the judge ``combined``.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _rows(ratings):
        writer.writerow(
            {
                key: f"{one:.6f}" if isinstance(one, float) else cell(one) if key in _TEXTS else one
                for key, one in row.items()
            }
        )
    return text.getvalue().encode()


def _rows(ratings: Ratings) -> Iterator[dict[str, Any]]:
    standings = dict(ratings["judges"])
    if ratings["combined"]:
        standings["combined"] = ratings["combined"]
    for judge, standing in standings.items():
        for rating in standing["ratings"]:
            found: dict[str, Any] = {"judge": judge, **rating}
            for name in _ESTIMATES:
                one = found[name] or {}
                found[name] = one.get("estimate")
                found[f"{name}_low"], found[f"{name}_high"] = one.get("low"), one.get("high")
            yield {column: found[column] for column in _COLUMNS}


def rate_votes(
    votes: Sequence[Vote],
    manifest: ArenaManifest,
    resamples: int | None = None,
    seed: int | None = None,
    pictures: Mapping[tuple[str, str], Path] | None = None,
) -> Ratings:
    """Return what ``ratings.json`` holds for the votes that count.

    Args:
        votes: As :func:`counting` returns them.
        manifest: Of their run.
        resamples, seed: Of the bootstrap over prompts, by default the manifest's.
        pictures: Where they lie, for what is measured on them if the manifest wants that.
    """
    from realbench.arena.nuisances import measure_pictures
    from realbench.arena.ratings import rate

    return rate(
        comparisons_of(votes, manifest["judges"]),
        [entry["name"] for entry in manifest["contestants"]],
        reference=manifest["reference"],
        votes=votes,
        resamples=manifest["resamples"] if resamples is None else resamples,
        seed=manifest["seed"] if seed is None else seed,
        anchor=manifest.get("anchor"),
        measured=measure_pictures(pictures or {}) if manifest.get("nuisances") else None,
    )


def comparisons_of(votes: Iterable[Vote], judges: Mapping[str, JudgeUsed]) -> list[Comparison]:
    """Return the votes' comparisons, each judge asked in as many orders as the manifest says."""
    return compare(votes, {name: int(about["orders"]) for name, about in judges.items()})


def counting(
    votes: Iterable[Vote],
    *,
    judges: Mapping[str, JudgeUsed],
    digests: Mapping[tuple[str, str], str],
) -> list[Vote]:
    """Return the votes that belong to a run as it is now, invalid ones among them.

    A vote does not where its judge has other settings now, where one of its pictures is another
    file now, or where a contestant has left.

    Args:
        votes: In their order.
        judges: The manifest's judges; of each ``fingerprint`` counts.
        digests: The pictures' SHA-256 by contestant and prompt id.
    """
    return [
        vote
        for vote in votes
        if vote.judge in judges
        and vote.judge_fingerprint == judges[vote.judge]["fingerprint"]
        and digests.get((vote.first, vote.prompt_id)) == vote.first_sha256
        and digests.get((vote.second, vote.prompt_id)) == vote.second_sha256
    ]


def latest_digests(votes: Iterable[Vote], contestants: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return the pictures' SHA-256 by contestant and prompt id, as the last votes have them."""
    known = set(contestants)
    digests = {}
    for vote in votes:
        digests[vote.first, vote.prompt_id] = vote.first_sha256
        digests[vote.second, vote.prompt_id] = vote.second_sha256
    return {key: digest for key, digest in digests.items() if key[0] in known}


def current_digests(votes: Iterable[Vote], manifest: ArenaManifest) -> dict[tuple[str, str], str]:
    """Return :func:`latest_digests` of a run, each picture of a contestant once.

    As in a run's lineup, what a model shares with the reference is left out. Photographs that
    stand in for reality as a whole may stand in for several prompts.
    """
    contestants = manifest["contestants"]
    digests = latest_digests(votes, [one["name"] for one in contestants])
    reference = manifest["reference"]
    repeats = {one["name"] for one in contestants if one.get("stands_in")}
    photographs = {sha for (name, _), sha in digests.items() if name == reference}
    kept: dict[tuple[str, str], str] = {}
    seen: set[tuple[str, str]] = set()
    for (name, prompt), sha in sorted(digests.items()):
        shared = name != reference and sha in photographs
        if name in repeats or not (shared or (name, sha) in seen):
            kept[name, prompt] = sha
        seen.add((name, sha))
    return kept


# --- A run's folder ----------------------------------------------------------------------------


def verify_run(run: str | Path) -> LogContents:
    """Read the votes of a run's folder, and see that they are as they were written.

    Raises:
        UsageError: no arena ran in the folder.
        EditedLogError: they are not as they were written.
        RealBenchError: the files are damaged, or cannot be read.
    """
    return read_log(Path(run) / VOTES_FILE, seal_of(read_manifest(Path(run))))


def rate_run(
    run: str | Path,
    *,
    resamples: int | None = None,
    seed: int | None = None,
    anchor: str | None = None,
    nuisances: bool = False,
    edited: bool = False,
) -> ArenaRun:
    """Rate the votes of a run's folder again, and write its ratings and its report.

    The votes are only read, unless they were edited; the pictures are needed only for the report's
    examples.

    Args:
        run: The folder that ``--out`` named.
        resamples: Of the bootstrap; by default as many as before.
        seed: Of the bootstrap; by default the one of before.
        anchor: The judge, or ``"human"``, on whose scale the others are brought; by default the one
            of before, and kept for the next time.
        nuisances: Whether to rate with sharpness, size and the like held equal, too, which needs
            the pictures; kept for the next time.
        edited: Whether votes that are not as they were written are taken as they are; they are
            then written anew, and the manifest says so.

    Raises:
        UsageError: no arena ran in the folder.
        EditedLogError: the votes are not as they were written.
        RealBenchError: its files are damaged, or cannot be read or written.
    """
    folder = Path(run)
    manifest = read_manifest(folder)
    log = accept_edits(folder, seal_of(manifest)) if edited else verify_run(folder)
    manifest["notes"] = list(dict.fromkeys([*manifest["notes"], *log.notes]))
    if anchor is not None:
        check_anchor(anchor, manifest["judges"])
        manifest["anchor"] = anchor
    if nuisances:
        manifest["nuisances"] = True
    if log.edit:
        manifest["votes_log"] = log.seal.model_dump()
    if log.edit or anchor is not None or nuisances:
        write_manifest(folder, manifest)
    votes = counted_votes(log.votes, manifest)
    ratings = rate_votes(votes, manifest, resamples, seed, _find_pictures(manifest))
    result = ArenaRun.of(folder, manifest, votes, ratings)
    _write_ratings(result, folder)
    return result


def check_anchor(anchor: str, judges: Iterable[str]) -> None:
    """See that a run has the judge that is to be its anchor, and another one.

    Raises:
        UsageError: it has not.
    """
    from realbench.arena.ratings import belongs

    theirs = [belongs(judge, anchor) for judge in judges]
    if not any(theirs) or all(theirs):
        raise UsageError(
            f"the anchor {printable(anchor)!r} needs votes of its own and of another judge; the "
            f"run has {', '.join(map(printable, judges)) or 'none'}: name one of its judges, or "
            "human for all people"
        )


def counted_votes(
    logged: Iterable[Vote], manifest: ArenaManifest, judge: str | None = None
) -> list[Vote]:
    """Return the votes that count for the run that a manifest describes.

    Args:
        logged: all that stand in its log.
        judge: whose alone; all judges' by default.
    """
    judges = manifest["judges"]
    current = [
        vote
        for vote in logged
        if vote.judge in ([judge] if judge else judges)
        and vote.judge_fingerprint == judges[vote.judge]["fingerprint"]
    ]
    return counting(current, judges=judges, digests=current_digests(current, manifest))


def _find_pictures(manifest: ArenaManifest) -> dict[tuple[str, str], Path]:
    pictures: dict[tuple[str, str], Path] = {}
    for entry in manifest["contestants"]:
        try:
            files = find_images(entry["path"], on_problem=lambda *_: None)
        except UsageError:
            continue
        by_image = {file.image: file.path for file in files}
        drawn = {prompt: by_image.get(image) for prompt, image in entry["stands_in"].items()}
        own = {file.prompt_id: file.path for file in reversed(files)}
        for prompt in manifest["prompts"]["texts"]:
            if path := (drawn or own).get(prompt):
                pictures[entry["name"], prompt] = path
    return pictures
