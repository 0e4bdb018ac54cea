"""An Arena-Scoring run: folders in, votes, ratings, manifest and report out."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from realbench.arena.contestants import Lineup, line_up
from realbench.arena.judges import JudgeOptions, check_options, make_judge
from realbench.arena.judges.judge import Judge
from realbench.arena.records import (
    ArenaManifest,
    JudgeUsed,
    describe_arena,
    describe_judge,
    read_manifest,
    seal_of,
    write_manifest,
)
from realbench.arena.results import ArenaRun, check_anchor, comparisons_of, counting, rate_votes
from realbench.arena.turn import SCHEDULES, Progress, Schedule, Turn, count_scheduled
from realbench.arena.vote_log import VoteLog
from realbench.arena.votes import Vote
from realbench.config.settings import checked_settings
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.prompts import load_suite
from realbench.runs.files import output_folder
from realbench.runs.folder import now
from realbench.scoring.cache import cache_path, open_cache
from realbench.sets.naming import set_folders, set_photographs
from realbench.text import printable

__all__ = ["ArenaInterrupted", "ArenaRun", "Progress", "arena"]

DEFAULT_JUDGES = ("detectors",)

# Of several judges' reasons to stop, the run's is the first of these.
_REASONS = ("failed", "interrupted", "max-cost", "max-votes", "separated", "complete")


class ArenaInterrupted(KeyboardInterrupt):
    """Ctrl-C during the judging; the votes are kept and rated.

    Attributes:
        run: What there is.
    """

    def __init__(self, run: ArenaRun) -> None:
        super().__init__("interrupted")
        self.run = run


@checked_settings
def arena(
    *folders: str | Path,
    judge: str | Judge | Sequence[str | Judge] = DEFAULT_JUDGES,
    reference: str | Path | None = None,
    prompts: str | Path | None = None,
    out: str | Path | None = None,
    schedule: Schedule = "all",
    max_votes: int | None = None,
    max_cost: float | None = None,
    seed: int = 0,
    resamples: int = 1000,
    options: JudgeOptions | None = None,
    anchor: str | None = None,
    nuisances: bool = False,
    accept_edits: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> ArenaRun:
    """Have judges compare folders of images pair by pair, and rate the folders.

    With the same ``out`` a run goes on where an earlier one ended, however that ended: what was
    judged is not judged again, unless a picture or a judge's settings have changed. Judges,
    folders and prompts may be added later.

    Args:
        folders: One per model; a file's stem is its prompt id.
        judge: Names such as ``"detectors"`` or ``"openai:MODEL"``, or judges; each in turn.
        reference: Folder of photographs, which becomes a contestant.
        prompts: A suite's name, or a file of prompts.
        out: Folder that receives votes, ratings, manifest and report; None keeps nothing.
        schedule: ``"all"`` judges every pair on every prompt they share; ``"active"`` next the
            pairs whose results tell most, until every neighboring pair is separated;
            ``"reference"`` the pairs in which photographs take part.
        max_votes: Answers that each judge is asked for in this run, at most.
        max_cost: What the answers of each judge may cost in this run, by the options' prices.
        seed: Of the order of pairs and pictures, the drawn photographs and the bootstrap.
        resamples: Of the bootstrap over prompts.
        options: The judges' options.
        anchor: The judge, or ``"human"`` for all people, on whose scale the others' comparisons
            are brought; it may have voted in an earlier run with the same ``out``.
        nuisances: Whether to rate with sharpness, size and the like held equal, too.
        accept_edits: Whether to go on with votes that are not as they were written.
        progress: Called as the run goes on.

    Raises:
        UsageError: a folder, file, judge or option that cannot be used.
        RealBenchError: a judge cannot work, or results cannot be written; votes are kept.
        ArenaInterrupted: Ctrl-C while judges were asked; it carries the run as far as it came.
    """
    started = now()
    tell = progress or (lambda _: None)
    given = None if out is None else output_folder(out)
    _check(schedule, max_votes=max_votes, max_cost=max_cost, seed=seed, resamples=resamples)
    if schedule == "reference" and reference is None:
        raise UsageError("the schedule reference needs photographs: give reference (--reference)")
    folders = tuple(set_folders(folders))
    reference = None if reference is None else set_photographs(reference)
    suite = load_suite(prompts) if prompts is not None else None
    asked = [judge] if isinstance(judge, str | Judge) else judge
    options = replace(options or JudgeOptions(), seed=seed)
    if max_cost is not None:
        options = replace(options, max_cost=max_cost)
    judges = _make_judges(asked, options)
    with ExitStack() as stack:
        folder = given or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="realbench-arena-"))
        )
        inputs = [*folders, *([] if reference is None else [reference])]
        before = _earlier(folder)
        seal = None if before is None else seal_of(before)
        log = stack.enter_context(VoteLog(folder, inputs, seal=seal, accept_edits=accept_edits))
        earlier = _earlier(folder)  # as it is now that no other run can change it
        with open_cache([cache_path()] if options.cache else []) as cache:
            lineup = line_up(
                folders,
                reference=reference,
                prompts=None if suite is None else suite.prompts,
                cache=cache,
                seed=seed,
                max_pixels=options.max_pixels,
                on_read=lambda done, total: tell(Progress("reading", done, total)),
            )
        manifest = describe_arena(
            lineup,
            _earlier_judges(earlier, log, lineup)
            | {one.name: describe_judge(one) for one in judges},
            arguments={
                "folders": [printable(one) for one in folders],
                "reference": None if reference is None else printable(reference),
                "prompts": None if prompts is None else printable(prompts),
                "judge": [one.name for one in judges],
                "max_votes": max_votes,
                "max_cost": max_cost,
            },
            suite=suite,
            schedule=schedule,
            seed=seed,
            resamples=resamples,
            started=started,
            notes=[*log.notes, *lineup.notes],
            votes_log=log.seal,
        )
        if anchor is not None:
            check_anchor(anchor, manifest["judges"])
            manifest["anchor"] = anchor
        if nuisances:
            manifest["nuisances"] = True
        if earlier is not None:
            _warn_of_replacement(folder, earlier, lineup)
        write_manifest(folder, manifest)
        run = _Run(lineup, log, manifest, max_votes, tell)
        failure = run.ask(judges)
        if isinstance(failure, RealBenchError):
            with suppress(RealBenchError):  # a full disk, say, which is the failure itself
                run.finish(folder, keep=out is not None)
            raise failure
        result = run.finish(folder, keep=out is not None)
    if failure is not None:
        raise ArenaInterrupted(result) from None
    return result


def _check(
    schedule: str, *, max_votes: int | None, max_cost: float | None, seed: int, resamples: int
) -> None:
    if schedule not in SCHEDULES:
        raise UsageError(f"no schedule {schedule!r}: choose among {', '.join(SCHEDULES)}")
    for name, value, least in (
        ("max_votes", max_votes, 1),
        ("seed", seed, 0),
        ("resamples", resamples, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
    if max_cost is not None and not max_cost > 0:
        raise UsageError(f"max_cost must be more than 0, not {max_cost}")


def _make_judges(asked: Sequence[str | Judge], options: JudgeOptions) -> list[Judge]:
    """Return the judges, so that what is wrong with the last shows before the first is asked."""
    if not asked:
        raise UsageError("no judge is given: name at least one")
    specs = [one for one in asked if isinstance(one, str)]
    if len(specs) == len(asked):
        check_options(specs, options)
    judges = [make_judge(one, options) if isinstance(one, str) else one for one in asked]
    names = [one.name for one in judges]
    twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if twice is not None:
        raise UsageError(f"the judge {twice!r} is given twice: name each one once")
    return judges


# --- Asking ------------------------------------------------------------------------------------


@dataclass
class _Run:
    lineup: Lineup
    log: VoteLog
    manifest: ArenaManifest
    max_votes: int | None
    tell: Callable[[Progress], None]
    n_asked: int = 0

    def ask(self, judges: Sequence[Judge]) -> KeyboardInterrupt | RealBenchError | None:
        """Give each judge its turn; return what broke the last one off, if anything did."""
        reasons = []
        failure: KeyboardInterrupt | RealBenchError | None = None
        for judge in judges:
            turn = Turn(
                judge,
                self.lineup,
                self.log,
                [vote for vote in self.votes() if vote.judge == judge.name],
                max_votes=self.max_votes,
                seed=self.manifest["seed"],
                tell=self.tell,
            )
            try:
                reason = turn.take(self.manifest["schedule"])
            except KeyboardInterrupt as error:
                reason, failure = "interrupted", error
            except RealBenchError as error:
                reason, failure = "failed", error
            self.n_asked += turn.n_answers
            # Again, since an endpoint's judge has learnt by now which kind of answer it can give.
            self.manifest["judges"][judge.name] = describe_judge(judge, reason)
            reasons.append(reason)
            if failure is not None:
                break
        self.manifest["stop_reason"] = min(reasons, key=_REASONS.index)
        return failure

    def votes(self) -> list[Vote]:
        """Return the votes that count, and the invalid answers."""
        return counting(self.log.votes, judges=self.manifest["judges"], digests=self.lineup.digests)

    def finish(self, folder: Path, *, keep: bool) -> ArenaRun:
        """Rate what was judged, and write it down where the run is kept."""
        self.tell(Progress("rating"))
        votes = self.votes()
        self.manifest["counts"] = self._counts(votes)
        self.manifest["votes_log"] = self.log.whole().model_dump()
        pictures = {key: one.path for key, one in self.lineup.pictures.items()}
        ratings = rate_votes(votes, self.manifest, pictures=pictures)
        self.manifest["finished"] = now()
        result = ArenaRun(
            ratings=ratings,
            votes=votes,
            manifest=self.manifest,
            pictures=pictures,
            prompts=self.lineup.prompts,
            contestants=self.lineup.contestants,
            reference=self.lineup.reference,
            out=folder if keep else None,
        )
        if keep:
            result.write(folder)
        return result

    def _counts(self, votes: Sequence[Vote]) -> dict[str, int]:
        judges = self.manifest["judges"]
        valid = {vote.showing for vote in votes if vote.verdict != "invalid"}
        invalid = {vote.showing for vote in votes if vote.verdict == "invalid"} - valid
        pairs = count_scheduled(self.lineup, self.manifest["schedule"]) * len(judges)
        return {
            "asked": self.n_asked,
            "votes": len(valid),
            "invalid": len(invalid),
            "pairs": pairs,
            "pairs_open": pairs - len(comparisons_of(votes, judges)),
        }


def _earlier(folder: Path) -> ArenaManifest | None:
    try:
        return read_manifest(folder)
    except RealBenchError:  # killed before it was written, say
        return None


def _earlier_judges(
    earlier: ArenaManifest | None, log: VoteLog, lineup: Lineup
) -> dict[str, JudgeUsed]:
    """Return the judges of earlier runs that have votes on the pictures of this one."""
    if earlier is None or not log.votes:
        return {}
    judges = earlier["judges"]
    voters = {vote.judge for vote in counting(log.votes, judges=judges, digests=lineup.digests)}
    return {name: about for name, about in judges.items() if name in voters}


def _warn_of_replacement(folder: Path, earlier: ArenaManifest, lineup: Lineup) -> None:
    """Say which contestants of the run so far take no part in this one, which replaces it."""
    before = [one["name"] for one in earlier["contestants"]]
    gone = [name for name in before if name not in lineup.contestants]
    if gone:
        message = (
            f"{printable(folder)} held a run with {', '.join(map(printable, gone[:3]))}, too: its "
            "ratings and report are replaced (the votes stay; another --out keeps all)"
        )
        warnings.warn(message, RealBenchWarning, stacklevel=4)
