"""Makes an entry of the folders that ``realbench score`` and ``realbench arena`` wrote."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from typing_extensions import TypeIs

from realbench.arena.records import ArenaManifest, JudgeUsed
from realbench.arena.records import read_manifest as read_arena
from realbench.config.config_files import as_toml, first_problem
from realbench.distances.compare import DINO
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.leaderboard.board import ANCHORS, BOARD_FILE, RESULTS, Board, load_board
from realbench.leaderboard.figures import detector_figures, letters_of, pack_features, win_rate
from realbench.leaderboard.names import slug
from realbench.leaderboard.schema import (
    FORMAT,
    ArenaScores,
    CrossFit,
    DetectorScores,
    DetectorUsed,
    Entry,
    EntryError,
    Fused,
    ImageFeatures,
    ImageScore,
    SuiteUsed,
    entry_bytes,
    parse_entry,
)
from realbench.prompt_records import export_prompts
from realbench.prompts import Suite, list_suites, load_suite
from realbench.runs.files import make_folder, write_atomically
from realbench.runs.folder import MANIFEST_FILE, read_json
from realbench.scoring import records
from realbench.scoring.records import (
    AGAIN,
    TABLE_FILE,
    ScoreManifest,
    read_features,
    read_summary,
    read_table,
)
from realbench.scoring.records import read_manifest as read_score
from realbench.text import printable

if TYPE_CHECKING:
    import pandas as pd

DIGEST = 16
_SAMPLER = "sampler."


@dataclass(frozen=True)
class Description:
    """What a contributor says of an entry.

    Attributes:
        model: the fields of :class:`~realbench.leaderboard.schema.Model`, name included.
        sampler: settings with which the images were made.
        folder: the model's name in the runs, where it is not the model's.
        renamed: further folders of an arena, by the names that the board has for them.
        is_anchor: whether it is an anchor of the board, such as its photographs.
    """

    model: Mapping[str, str]
    sampler: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    folder: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    is_anchor: bool = False


def parse_meta(pairs: Sequence[str]) -> tuple[dict[str, str], dict[str, str | int | float]]:
    """Split ``KEY=VALUE`` texts into fields of the model and, as ``sampler.KEY``, of the sampler.

    Raises:
        UsageError: a text is no such pair, or a key is unknown or comes twice.
    """
    known = ("version", "organisation", "licence", "parameters", "date", "link")
    model: dict[str, str] = {}
    sampler: dict[str, str | int | float] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        key, value = key.strip(), value.strip()
        if not sign or not value:
            raise UsageError(f"--meta takes KEY=VALUE, not {printable(pair)!r}")
        if key in model or key.removeprefix(_SAMPLER) in sampler:
            raise UsageError(f"--meta gives {printable(key)} twice: give it once")
        if key.startswith(_SAMPLER) and key != _SAMPLER:
            sampler[key.removeprefix(_SAMPLER)] = _number(value)
        elif key in known:
            model[key] = value
        else:
            raise UsageError(
                f"--meta knows no {printable(key)!r}: it takes {', '.join(known)} and sampler.KEY"
            )
    return model, sampler


def _number(text: str) -> str | int | float:
    try:
        return int(text) if text.lstrip("-").isdecimal() and text.isascii() else float(text)
    except ValueError:
        return text


def make_entry(runs: Sequence[Path], board: Board, description: Description) -> Entry:
    """Make an entry of a score run, an arena run, or both.

    An anchor to which the board gives ``cross_fit`` may be of several score runs, each with
    another set of the board's detectors and other images.

    Raises:
        UsageError: a folder is neither, the model is not in it, or a field is not what it should.
        RealBenchError: a run's files are damaged, or were made with other prompts.
    """
    parts: dict[str, Any] = {}
    versions: dict[str, str] = {}
    anchor = board.anchor_slugs.get(slug(description.model["name"]))
    for run in runs:
        manifest = read_run(run)
        check_suite(run, manifest, board.suite)
        if is_arena(manifest):
            if "arena_scoring" in parts:
                raise _second(run, "arena")
            parts["arena_scoring"] = _arena_scores(run, manifest, board, description)
        elif "detector_scoring" not in parts:
            parts["detector_scoring"] = _detector_scores(run, manifest, board, description)
        elif description.is_anchor and anchor is not None and anchor.cross_fit:
            more = _detector_scores(run, manifest, board, description)
            parts["detector_scoring"] = _joined(parts["detector_scoring"], more, run, board)
            continue
        else:
            raise _second(run, "score")
        versions |= manifest["versions"]
    if not parts:
        raise UsageError("name the folder of a score run, an arena run, or both")
    if parts.get("detector_scoring") and not board.settings.detectors:
        raise UsageError("the board has no detectors, so it takes no score run")
    if parts.get("arena_scoring") and board.settings.judge is None:
        raise UsageError("the board has no judge, so it takes no arena run")
    record = {
        "format": FORMAT,
        "model": dict(description.model),
        "sampler": dict(description.sampler),
        "suite": SuiteUsed(name=board.settings.suite.name, sha256=board.suite.sha256).model_dump(),
        **{key: part.model_dump(mode="json") for key, part in parts.items()},
        "versions": versions,
    }
    try:
        return parse_entry(json.dumps(record).encode())
    except EntryError as error:
        raise UsageError(f"the entry would not be valid: {error.problems[0]}") from error


def _second(run: Path, kind: str) -> UsageError:
    return UsageError(f"{printable(run)} is a second {kind} run: an entry takes one of each kind")


def write_entry(entry: Entry, path: Path) -> None:
    """Write an entry's file.

    Raises:
        RealBenchError: it cannot be written.
    """
    make_folder(path.parent)
    write_atomically(path, entry_bytes(entry))


# --- Reading runs ------------------------------------------------------------------------------


def read_run(run: Path) -> ScoreManifest | ArenaManifest:
    """Read the ``run.json`` of a score or an arena run.

    Raises:
        UsageError: the folder is none of a run.
        RealBenchError: the file is damaged or cannot be read.
    """
    found = read_json(run / MANIFEST_FILE, "run it again")
    if found is None:
        raise UsageError(
            f"{printable(run)} has no {MANIFEST_FILE}: name a folder that realbench score or "
            "realbench arena wrote (--out)"
        )
    return read_arena(run) if "arena_format" in found else read_score(run)


def is_arena(manifest: ScoreManifest | ArenaManifest) -> TypeIs[ArenaManifest]:
    """Return whether a manifest is of an arena."""
    return "arena_format" in manifest


def check_suite(run: Path, manifest: ScoreManifest | ArenaManifest, suite: Suite) -> None:
    """Check that a run that says which prompts it had, had these.

    Raises:
        RealBenchError: it had other ones.
    """
    stated = (manifest["suite"] or {}).get("sha256")
    if stated is not None and stated != suite.sha256:
        raise RealBenchError(
            f"{printable(run)} was run with other prompts (suite hash {str(stated)[:12]}…) than "
            f"the board's {suite.name} ({suite.sha256[:12]}…): run it again with the board's suite"
        )


def template_of(judge: JudgeUsed) -> str | None:
    """Return the SHA-256 of a judge's template, None where it has none."""
    template: Any = judge.get("template")
    return (template or {}).get("sha256")


def _detector_scores(
    run: Path, manifest: ScoreManifest, board: Board, description: Description
) -> DetectorScores:
    table = read_table(run)
    names = [one["name"] for one in manifest["detectors"]]
    for name in names:
        if name not in table:
            raise RealBenchError(
                f"{printable(run / TABLE_FILE)} is damaged (no column {printable(name)}): {AGAIN}"
            )
    used = [
        DetectorUsed(
            name=one["name"],
            level=one["level"],
            fingerprint=one["fingerprint"],
            fused=Fused(**fused) if (fused := one.get("fused")) else None,
        )
        for one in manifest["detectors"]
    ]
    own_name = _own_name(list(dict.fromkeys(table["folder"])), run, description)
    own = table[table["folder"] == own_name]
    # Runs of version 0.1.0 have a row for each copy of a picture.
    scored = own[own["status"] == "ok"].drop_duplicates("sha256")
    failed = int((own["status"] == "unreadable").sum())
    images: list[ImageScore] = [
        (prompt, sha256[:DIGEST], realism, list(each))
        for prompt, sha256, realism, *each in scored[
            ["prompt_id", "sha256", "realism", *names]
        ].itertuples(index=False)
    ]
    if not images:
        raise RealBenchError(f"{printable(run / TABLE_FILE)}: no image of the model has a score")
    features = _features(run, board, table, scored.index)
    if features is not None:
        order = sorted(range(len(images)), key=images.__getitem__)
        features = features.model_copy(update={"vectors": [features.vectors[n] for n in order]})
    images.sort()
    prompts = {} if description.is_anchor else board.suite.prompts
    categories = {key: prompt.category for key, prompt in prompts.items()}
    figures: dict[str, Any] = detector_figures(images, names, categories, board.settings.seed)
    return DetectorScores(
        detectors=used, n_failed=failed, images=images, features=features, **figures
    )


def _features(
    run: Path, board: Board, table: pd.DataFrame, rows: Sequence[int]
) -> ImageFeatures | None:
    """Return the features of a run's rows, where the board shows distances and the run has them."""
    wanted = board.settings.features
    if wanted is None:
        return None
    found = read_features(run, len(table)).get(wanted.name)
    record = read_summary(run).get("distances") if found is not None else None
    if found is None or record is None:
        warnings.warn(
            f"{printable(run)} has no features of {wanted.name}, so the entry has no distances: "
            "score with --distances for them",
            RealBenchWarning,
            stacklevel=2,
        )
        return None
    (used,) = (one for one in record["features"] if one["name"] == wanted.name)
    return ImageFeatures(
        name=wanted.name, fingerprint=used["fingerprint"], vectors=pack_features(found[rows])
    )


def _joined(
    scores: DetectorScores, more: DetectorScores, run: Path, board: Board
) -> DetectorScores:
    """Add what another set of detectors found on further images of an anchor."""
    names = [one.name for one in scores.detectors]
    found = {one.name: one for one in more.detectors}
    if set(found) != set(names):
        raise UsageError(f"{printable(run)} has other detectors than the run before it")
    order = [[one.name for one in more.detectors].index(name) for name in names]
    used = [found[name].fingerprint for name in names]
    before = scores.cross_fit or CrossFit.model_construct(
        sets=[[one.fingerprint for one in scores.detectors]], set_of_image=[0] * len(scores.images)
    )
    if used in before.sets:
        raise UsageError(
            f"{printable(run)} has the same detectors as a run before it: name one run for each set"
        )
    added = [(p, d, realism, [each[n] for n in order]) for p, d, realism, each in more.images]
    set_of_image = [*before.set_of_image, *[len(before.sets)] * len(added)]
    order = sorted(range(len(set_of_image)), key=[*scores.images, *added].__getitem__)
    images: list[ImageScore] = [[*scores.images, *added][n] for n in order]
    features = scores.features
    if features is not None:
        both = [*features.vectors, *(more.features.vectors if more.features else [])]
        features = (
            features.model_copy(update={"vectors": [both[n] for n in order]})
            if len(both) == len(order)
            else None
        )
    figures: dict[str, Any] = detector_figures(images, names, {}, board.settings.seed)
    return DetectorScores(
        detectors=scores.detectors,
        n_failed=scores.n_failed + more.n_failed,
        images=images,
        cross_fit=CrossFit(
            sets=[*before.sets, used], set_of_image=[set_of_image[n] for n in order]
        ),
        features=features,
        **figures,
    )


def _own_name(names: Sequence[str], run: Path, description: Description) -> str:
    wanted = description.folder or description.model["name"]
    if wanted in names:
        return wanted
    if len(names) == 1 and description.folder is None:
        return names[0]
    shown = ", ".join(printable(name) for name in names[:8]) + (", …" if len(names) > 8 else "")
    raise UsageError(
        f"{printable(run)} has no folder {printable(wanted)!r}: name the model's with --folder "
        f"({shown})"
    )


def _arena_scores(
    run: Path, manifest: ArenaManifest, board: Board, description: Description
) -> ArenaScores:
    from realbench.arena.results import comparisons_of, counted_votes, current_digests, verify_run

    wanted = board.settings.judge
    judges = manifest["judges"]
    names = [one["name"] for one in manifest["contestants"]]
    if wanted is None or wanted.name not in judges:
        raise UsageError(
            f"{printable(run)} has the judges {', '.join(map(printable, judges))}, but the "
            f"board takes {wanted.name if wanted else 'none'}"
        )
    judge = judges[wanted.name]
    votes = counted_votes(verify_run(run).votes, manifest, wanted.name)
    digests = current_digests(votes, manifest)
    comparisons = comparisons_of(votes, {wanted.name: judge})
    own = _own_name(names, run, description)
    results: dict[str, dict[str, list[float]]] = {}
    for one in comparisons:
        if own in (one.a, one.b):
            other = one.b if one.a == own else one.a
            score = one.score if one.a == own else 1 - one.score
            results.setdefault(other, {}).setdefault(one.prompt_id, []).append(score)
    if not results:
        raise RealBenchError(f"{printable(run)}: {printable(own)} has no comparison yet")
    prompts = sorted({prompt for scores in results.values() for prompt in scores})
    photographs = [one.name for one in board.settings.anchors if one.is_photographs]
    known = dict(description.renamed)
    if manifest["reference"] is not None and photographs:
        known.setdefault(manifest["reference"], photographs[0])  # they are the board's
    opponents = {
        known.get(name, name): "".join(
            _letter(scores[prompt]) if prompt in scores else "-" for prompt in prompts
        )
        for name, scores in sorted(results.items())
    }
    if len({*opponents, known.get(own, own)}) <= len(results):
        raise UsageError("--rename gives two contestants one name: give each its own")
    votes_digest = hashlib.sha256("\n".join(sorted(vote.id for vote in votes)).encode())
    counts = letters_of(opponents)
    try:
        return ArenaScores(
            judge=wanted.name,
            judge_fingerprint=judge["fingerprint"],
            template_sha256=template_of(judge),
            run=votes_digest.hexdigest()[:DIGEST],
            contestant=known.get(own, own),
            prompts=prompts,
            images=[digests[own, prompt][:DIGEST] for prompt in prompts],
            opponents=opponents,
            wins=counts["W"],
            ties=counts["T"],
            losses=counts["L"],
            win_rate=win_rate(opponents, prompts, board.settings.seed),
        )
    except ValidationError as error:
        raise UsageError(
            f"the arena cannot be entered: {first_problem(error, '')} (--rename gives an opponent "
            "another name)"
        ) from error


def _letter(scores: Sequence[float]) -> str:
    """Return a pair's result on a prompt: that of most votes, where a crowd cast several."""
    mean = sum(scores) / len(scores)
    return "W" if mean > 0.5 else "L" if mean < 0.5 else "T"


_PROMPTS_FILE = "prompts.jsonl"


def start_board(
    folder: Path, runs: Sequence[Path], *, suite: str, title: str, min_prompts: int | None = None
) -> Board:
    """Write a board for entries that are made as these runs were.

    Args:
        folder: the board's, new or empty of a board.
        runs: of ``score`` and ``arena``; their detectors, judge and photographs become the
            board's.
        suite: a bundled suite's name, or a file, whose prompts are copied into the board.
        title: for people.
        min_prompts: the least number of prompts with an image; by default nine in ten.

    Raises:
        UsageError: there is a board already, or a run or the suite cannot be used.
        RealBenchError: a run is damaged, or a file cannot be written.
    """
    path = folder / BOARD_FILE
    if path.exists():
        raise UsageError(f"{printable(path)} is there already: edit it, or give another folder")
    prompts = load_suite(suite)
    is_file = suite not in list_suites()
    text = _settings(runs, prompts, title, min_prompts, _PROMPTS_FILE if is_file else None)
    for name in (RESULTS, ANCHORS):
        make_folder(folder / name)
    if is_file:
        write_atomically(folder / _PROMPTS_FILE, export_prompts(prompts).encode())
    write_atomically(path, text.encode())
    return load_board(folder)


def _settings(
    runs: Sequence[Path], suite: Suite, title: str, min_prompts: int | None, file: str | None
) -> str:
    detectors: list[records.DetectorUsed] = []
    judge: dict[str, Any] = {}
    features: dict[str, Any] = {}
    anchors: list[str] = []
    ids: set[str] = set()
    for run in runs:
        manifest = read_run(run)
        check_suite(run, manifest, suite)
        if is_arena(manifest):
            judge = _judge(run, manifest)
            reference = manifest["reference"]
        else:
            detectors = manifest["detectors"]
            features = features or _board_features(run)
            ids |= set(read_table(run)["prompt_id"])
            photographs = read_summary(run)["reference"]
            reference = photographs["folder"] if photographs else None
        if reference is not None and reference not in anchors:
            anchors.append(reference)
    if detectors and ids.isdisjoint(suite.prompts):
        raise UsageError(
            f"the runs have no image of a prompt of {suite.name}: the stem of an image is its "
            f"prompt's id (such as {next(iter(suite.prompts))}.png)"
        )
    wanted = {
        "realism": detectors,
        "escape_rate": detectors,
        "auc": detectors and anchors,
        "detectors": detectors,
        "categories": detectors and suite.categories,
        "two_sample": features and anchors,
        "kd": features and anchors,
        "fd": features and anchors,
        "arena": judge,
        "win_rate": judge,
    }
    board: dict[str, Any] = {
        "format": 1,
        "title": title,
        "description": "",
        "limits": [],
        "rank_by": "realism" if detectors else "arena",
        "columns": [column for column, has in wanted.items() if has],
        "suite": {
            "name": suite.name,
            "sha256": suite.sha256,
            "file": file,
            "min_prompts": min_prompts or max(2, -(-len(suite.prompts) * 9 // 10)),
        },
    }
    if detectors:
        board["detectors"] = [
            {
                "name": one["name"],
                "level": one["level"],
                "fingerprints": [one["fingerprint"]],
                "fused": one.get("fused"),
            }
            for one in detectors
        ]
    board |= {"judge": judge} if judge else {}
    board |= {"features": features} if features and anchors else {}
    board |= {"anchors": [{"name": name} for name in anchors]} if anchors else {}
    return as_toml(board)


def _board_features(run: Path) -> dict[str, Any]:
    record = read_summary(run).get("distances")
    found = read_features(run, len(read_table(run)))
    for used in record["features"] if record else ():
        if used["name"] == DINO and DINO in found:
            size = found[DINO].shape[1]
            return {"name": DINO, "fingerprint": used["fingerprint"], "size": size}
    return {}


def _judge(run: Path, manifest: ArenaManifest) -> dict[str, Any]:
    if len(manifest["judges"]) != 1:
        raise UsageError(
            f"{printable(run)} has {len(manifest['judges'])} judges: a board has one, so start it "
            "from a run with one"
        )
    ((name, about),) = manifest["judges"].items()
    fingerprints = [about["fingerprint"]]
    return {"name": name, "fingerprints": fingerprints, "template_sha256": template_of(about)}
