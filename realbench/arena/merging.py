"""Joins the votes of several runs into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from realbench.arena.records import (
    MANIFEST_FORMAT,
    ArenaManifest,
    ContestantUsed,
    JudgeUsed,
    read_manifest,
    write_manifest,
)
from realbench.arena.results import ArenaRun, latest_digests, rate_run, verify_run
from realbench.arena.vote_log import Entry, standing, write_log
from realbench.arena.votes import CROWD, Vote
from realbench.errors import RealBenchError, UsageError
from realbench.runs.files import output_folder
from realbench.runs.folder import now
from realbench.text import printable


@dataclass(frozen=True, slots=True)
class Merge:
    """What came of a merge.

    Attributes:
        run: The joined run, rated.
        n_votes: Votes that stand in it, invalid answers among them.
        n_duplicates: Lines that another run had already.
        n_again: Votes on a showing that the same judge had judged in another run; of these the
            last counts.
    """

    run: ArenaRun
    n_votes: int
    n_duplicates: int
    n_again: int


def merge(runs: Sequence[str | Path], out: str | Path) -> Merge:
    """Join the votes of several runs in a new folder, and rate them.

    A vote that several runs have is kept once. Each run's votes must be as they were written (of
    edited ones see ``realbench arena rate --accept-edits``). The runs may have other contestants,
    prompts and judges; where they have the same, these must be the same.

    Args:
        runs: At least two folders that arena wrote.
        out: A folder without votes.

    Raises:
        UsageError: fewer than two runs, one given twice, or one in which no arena ran.
        RealBenchError: a contestant's picture of a prompt, a judge's settings or the reference
            differ between runs, or two different votes have one id; or files that cannot be read
            or written.
    """
    target = output_folder(out)
    folders = [Path(run) for run in runs]
    if len(folders) < 2:
        raise UsageError("a merge needs two runs or more: name their folders")
    real = [folder.resolve() for folder in folders]
    twice = next((folders[n] for n, one in enumerate(real) if one in real[:n]), None)
    if twice is not None:
        raise UsageError(f"the run {printable(twice)} is given twice: name each one once")
    manifests = [read_manifest(folder) for folder in folders]
    contents = [verify_run(folder) for folder in folders]
    logs = [one.entries for one in contents]
    manifest = _joined_manifest(folders, manifests)
    _check_pictures(folders, manifests, logs)
    entries, n_duplicates = _joined_entries(folders, logs)
    votes = standing(entries)
    crowds = {name for name, about in manifest["judges"].items() if about["orders"] == CROWD}
    shown = Counter(
        vote.id if vote.judge in crowds else vote.showing
        for vote in votes
        if vote.verdict != "invalid"
    )
    valid = sum(vote.verdict != "invalid" for vote in votes)
    manifest["counts"] = {"votes": len(shown), "invalid": len(votes) - valid}
    manifest["notes"] += [
        f"{printable(folder)}: {note}"
        for folder, one in zip(folders, contents, strict=True)
        for note in one.notes
    ]
    manifest["votes_log"] = write_log(target, entries).model_dump()
    write_manifest(target, manifest)
    return Merge(rate_run(target), len(votes), n_duplicates, valid - len(shown))


def _joined_entries(
    folders: Sequence[Path], logs: Sequence[Sequence[Entry]]
) -> tuple[list[Entry], int]:
    """Return the runs' entries one after the other, and how many of them came again."""
    known: dict[str, tuple[Entry, Path]] = {}
    duplicates = 0
    for folder, log in zip(folders, logs, strict=True):
        for entry in log:
            before, where = known.setdefault(entry.key, (entry, folder))
            duplicates += before is not entry
            if before != entry and isinstance(entry, Vote):
                raise RealBenchError(
                    f"{printable(where)} and {printable(folder)} have different votes with the "
                    f"id {entry.id!r}: one of them was changed; merge runs as they were written"
                )
    return [entry for entry, _ in known.values()], duplicates


def _check_pictures(
    folders: Sequence[Path], manifests: Sequence[ArenaManifest], logs: Sequence[Sequence[Entry]]
) -> None:
    """Refuse runs in which one name means different pictures."""
    seen: dict[tuple[str, str], tuple[str, Path]] = {}
    for folder, manifest, log in zip(folders, manifests, logs, strict=True):
        names = [entry["name"] for entry in manifest["contestants"]]
        for key, digest in latest_digests(standing(log), names).items():
            before, where = seen.setdefault(key, (digest, folder))
            if before != digest:
                name, prompt = map(printable, key)
                raise RealBenchError(
                    f"{name}'s picture of prompt {prompt} is another one in {printable(where)} "
                    f"({before[:8]}…) than in {printable(folder)} ({digest[:8]}…): different "
                    "models need folders of different names"
                )


def _joined_manifest(folders: Sequence[Path], manifests: Sequence[ArenaManifest]) -> ArenaManifest:
    references = {m["reference"]: None for m in manifests if m["reference"] is not None}
    if len(references) > 1:
        raise RealBenchError(
            f"the runs have different references ({', '.join(map(printable, references))}): merge "
            "runs with the same photographs"
        )
    reference = next(iter(references), None)
    texts: dict[str, str | None] = {}
    for manifest in manifests:
        for prompt, text in manifest["prompts"]["texts"].items():
            texts[prompt] = texts.get(prompt) or text
    first = manifests[0]
    schedules = {manifest["schedule"] for manifest in manifests}
    suites = [manifest.get("suite") for manifest in manifests]
    shown = [printable(folder) for folder in folders]
    return {
        "arena_format": MANIFEST_FORMAT,
        "versions": first["versions"],
        "platform": first["platform"],
        "seed": first["seed"],
        "resamples": max(manifest["resamples"] for manifest in manifests),
        "arguments": {"merged": shown},
        "argv": ["realbench", "arena", "merge", *shown],
        "suite": suites[0] if all(one == suites[0] for one in suites) else None,
        "schedule": schedules.pop() if len(schedules) == 1 else "mixed",
        "contestants": _joined_contestants(manifests, reference),
        "reference": reference,
        "prompts": {"shared": len(texts), "dropped": {}, "missing": {}, "texts": texts},
        "judges": _joined_judges(folders, manifests),
        "notes": [f"merged from {', '.join(shown)}"],
        "started": min(manifest["started"] for manifest in manifests),
        "finished": now(),
        "stop_reason": None,
        "counts": {},
    }


def _joined_contestants(
    manifests: Sequence[ArenaManifest], reference: str | None
) -> list[ContestantUsed]:
    """Return every contestant once, the reference last."""
    contestants: dict[str, ContestantUsed] = {}
    for manifest in manifests:
        for entry in manifest["contestants"]:
            name = entry["name"]
            if (name == reference) != entry["is_reference"]:
                raise RealBenchError(
                    f"{printable(name)} is the reference in one run and a model in another: merge "
                    "runs in which it is the same"
                )
            known = contestants.setdefault(name, entry.copy())
            known["stands_in"] = {**entry["stands_in"], **known["stands_in"]}
    return sorted(contestants.values(), key=lambda entry: entry["is_reference"])


def _joined_judges(
    folders: Sequence[Path], manifests: Sequence[ArenaManifest]
) -> dict[str, JudgeUsed]:
    judges: dict[str, JudgeUsed] = {}
    judged_in: dict[str, Path] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        for name, about in manifest["judges"].items():
            where = judged_in.setdefault(name, folder)
            known = judges.setdefault(name, about)
            if (known["fingerprint"], known["orders"]) != (about["fingerprint"], about["orders"]):
                raise RealBenchError(
                    f"the judge {printable(name)} has other settings in {printable(where)} than in "
                    f"{printable(folder)} (see run.json): merge runs that it judged alike"
                )
    return judges
