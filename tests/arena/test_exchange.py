"""Votes of other arenas in, comparisons out, and the ratings of the tools that read them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import evalica
import numpy as np
import pandas as pd
import pytest
import trueskill

from realbench.arena import bradley_terry, elo, true_skill
from realbench.arena.exchange import VoteColumns, export_comparisons, import_votes, read_votes
from realbench.arena.merging import merge
from realbench.arena.ratings import judge_agreement
from realbench.arena.records import Rating
from realbench.arena.results import ArenaRun, comparisons_of
from realbench.arena.tally import Tally, tally
from realbench.arena.votes import CROWD, Vote, compare
from realbench.errors import RealBenchError, UsageError
from tests.leaderboard.boards import enter, make_board, write_arena_run

NAMES = ["ape", "bee", "cat", "doe", "eel"]
CODES = {"left": evalica.Winner.X, "right": evalica.Winner.Y, "tie": evalica.Winner.Draw}

# arena-rank 0.1.1 on battles() in a file of its own form: in an environment that has it,
#   data = PairDataset.from_pandas(pandas.read_csv("votes.csv"))
#   model = BradleyTerry(n_competitors=5, ftol=1e-15, gtol=1e-12).fit(data)
#   model.params["ratings"] - model.params["ratings"].mean(), by the names in data.competitors
ARENA_RANK = {
    "ape": 0.823995485,
    "bee": 0.462017647,
    "cat": -0.037061263,
    "doe": -0.484542242,
    "eel": -0.764409627,
}


def battles(n: int = 400) -> pd.DataFrame:
    """Votes of a crowd on five models of unequal strength, in the form of arena-rank."""
    rng = np.random.default_rng(19)
    rows = []
    for _ in range(n):
        a, b = rng.permutation(5)[:2]
        chance = 1 / (1 + np.exp(0.5 * (a - b)))
        won = "tie" if rng.random() < 0.2 else "model_a" if rng.random() < chance else "model_b"
        rows.append({"model_a": NAMES[a], "model_b": NAMES[b], "winner": won})
    return pd.DataFrame(rows)


def imported(folder: Path, text: str, ending: str = "csv", **settings: object) -> ArenaRun:
    source = folder / f"votes.{ending}"
    source.write_text(text, encoding="utf-8")
    return import_votes(source, folder / "run", resamples=20, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ArenaRun:
    return imported(tmp_path_factory.mktemp("battles"), battles().to_csv(index=False))


def said(votes: list[Vote]) -> list[tuple[str, str, str, str]]:
    return [(vote.judge, vote.first, vote.second, vote.verdict) for vote in votes]


def counted(run: ArenaRun) -> Tally:
    return tally(comparisons_of(run.votes, run.manifest["judges"]), run.contestants)


def test_bradley_terry_is_that_of_evalica_and_arena_rank(run: ArenaRun) -> None:
    votes = counted(run)
    out = pd.read_csv(io.BytesIO(export_comparisons(run.out or "", "evalica")))
    theirs = evalica.bradley_terry(
        out["left"].tolist(),
        out["right"].tolist(),
        out["winner"].map(CODES).tolist(),
        tolerance=1e-13,
        limit=10_000,
    )
    logs = np.log(theirs.scores.reindex(NAMES).to_numpy(float))
    # A run's own ratings have virtual ties added, which keep the undefeated finite.
    counts = votes.pair_counts[None]
    own = bradley_terry.solve(votes, votes.pair_scores[None], counts, np.zeros(5))[0]
    assert own == pytest.approx(logs - logs.mean(), abs=1e-6)
    assert own == pytest.approx([ARENA_RANK[name] for name in NAMES], abs=1e-6)
    reported = {one["contestant"]: one["bradley_terry"]["estimate"] for one in _ratings(run)}
    points = own * bradley_terry.POINTS + 1000
    assert [reported[name] for name in NAMES] == pytest.approx(points, abs=3)


def test_elo_is_the_mean_of_evalicas_over_orders_of_the_exported_file(run: ArenaRun) -> None:
    votes = counted(run)
    out = pd.read_csv(io.BytesIO(export_comparisons(run.out or "", "evalica")))
    ratings, _ = elo.elo(votes, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    order = np.empty(0, dtype=int)
    runs = []
    for _ in range(elo.RUNS):
        while len(order) < elo.run_length(votes):
            order = np.concatenate([order, rng.permutation(len(out))])
        games, order = np.split(order, [elo.run_length(votes)])
        rows = out.iloc[games]
        score = rows["winner"].map({"left": 1.0, "tie": 0.5, "right": 0.0}).to_numpy()
        results = elo.outcomes(score, rng, elo.virtual_share(votes)).tolist()
        found = evalica.elo(rows["left"].tolist(), rows["right"].tolist(), results, k=elo.K_FACTOR)
        runs.append(found.scores.reindex(NAMES).to_numpy(float))
    assert ratings == pytest.approx(np.mean(runs, axis=0), abs=1e-6)


def test_true_skill_is_the_packages_on_the_exported_file(run: ArenaRun) -> None:
    votes = counted(run)
    out = pd.read_csv(io.BytesIO(export_comparisons(run.out or "", "arena-rank")))
    skills = true_skill.true_skill(votes, np.random.default_rng(0))
    draws = float((out["winner"] == "tie").mean())
    world = trueskill.TrueSkill(tau=0.0, draw_probability=draws)
    players = {name: world.create_rating() for name in NAMES}
    for n in np.random.default_rng(0).permutation(len(out)):
        row = out.iloc[n]
        one, other = row["model_a"], row["model_b"]
        if row["winner"] == "model_b":
            one, other = other, one
        players[one], players[other] = trueskill.rate_1vs1(
            players[one], players[other], drawn=row["winner"] == "tie", env=world
        )
    mu = np.array([players[name].mu for name in NAMES])
    assert skills == pytest.approx(mu - mu.mean() + trueskill.MU, abs=1e-6)


def test_every_vote_of_a_crowd_counts(tmp_path: Path) -> None:
    source = tmp_path / "votes.csv"
    source.write_text(
        "model_a,model_b,winner,judge,prompt_id\n"
        "x,y,model_a,ana,p1\nx,y,model_a,ana,p1\ny,x,model_a,ana,p1\nx,y,tie,ben,p1\n"
    )
    votes, n_empty = read_votes(source)
    assert n_empty == 0
    found = compare(votes, {"ana": CROWD, "ben": CROWD})
    assert [(one.judge, one.score) for one in found] == [
        *[("ana", 1.0), ("ana", 1.0), ("ana", 0.0)],
        ("ben", 0.5),
    ]
    agreement = judge_agreement(found, resamples=20, seed=0)
    assert agreement is not None
    assert agreement["pairs"][0]["agreement"]["estimate"] == 0.0  # most of ana's votes are for x
    # Ben's tie and one of ana's votes less: hers are a tie, too.
    fewer = judge_agreement(found[1:], resamples=20, seed=0)
    assert fewer is not None
    assert fewer["pairs"][0]["agreement"]["estimate"] == 1.0


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("left,right,winner,worker\nx,y,left,w\nx,y,right,w\ny,x,TIE,w\nx,y,,w\n", "csv"),
        (
            "Model_A\tModel_B\tWinner\tJudge\nx\ty\tx\tw\nx\ty\ty\tw\ny\tx\ttie (bothbad)\tw\n",
            "tsv",
        ),
        (
            "model_a,model_b,winner_model_a,winner_model_b,winner_tie,rater\n"
            "x,y,1,0,0,w\nx,y,0,1,0,w\ny,x,0,0,1,w\n",
            "csv",
        ),
        (
            "\n".join(
                json.dumps({"model_a": a, "model_b": b, "winner": won, "tie": tie, "judge": "w"})
                for a, b, won, tie in (
                    ("x", "y", "model_a", False),
                    ("x", "y", "model_b", False),
                    ("y", "x", None, True),
                )
            ),
            "jsonl",
        ),
    ],
)
def test_forms_of_votes(tmp_path: Path, text: str, ending: str) -> None:
    source = tmp_path / f"votes.{ending}"
    source.write_text(text)
    votes, _ = read_votes(source)
    expected = [("w", "x", "y", "first"), ("w", "x", "y", "second"), ("w", "y", "x", "tie")]
    assert said(votes) == expected


def test_parquet_and_named_columns(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    source = tmp_path / "votes.parquet"
    table = pd.DataFrame({"one": ["x"], "two": ["y"], "best": ["one"], "image": [b"\0" * 9]})
    table["best"] = "right"
    table.to_parquet(source)
    columns = VoteColumns(model_a="one", model_b="two", winner="best")
    votes, _ = read_votes(source, columns, "human")
    assert said(votes) == [("human", "x", "y", "second")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,model_b,winner\nx,y,tie\n", "no column 'model_a or left.*--model-a-column"),
        ("left,right,winner\nx,x,tie\n", "row 1: 'x' and 'x' are no two models"),
        ("left,right,winner\nx,y,left\nx,y,zebra\n", "row 2: the winner 'zebra'"),
        ("left,right,winner,tie\nx,y,left,perhaps\n", "row 1: 'perhaps' in the column of tie"),
        ("left,right,winner\n", "holds no votes"),
        (
            "left,right,winner,judge\n" + "".join(f"x,y,left,w{n}\n" for n in range(21)),
            "21 judges.*--judge human",
        ),
    ],
)
def test_what_is_no_file_of_votes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        imported(tmp_path, text)
    assert not (tmp_path / "run").exists()


def test_a_run_is_kept_read_exported_and_merged(tmp_path: Path) -> None:
    run = imported(tmp_path, battles(40).to_csv(index=False), judge="human", reference="ape")
    assert (run.reference, run.contestants[-1]) == ("ape", "ape")
    with pytest.raises(RealBenchError, match="exists already"):
        import_votes(tmp_path / "votes.csv", tmp_path / "run")
    assert ArenaRun.read(tmp_path / "run").ratings == run.ratings
    (tmp_path / "again.csv").write_bytes(export_comparisons(tmp_path / "run", "arena-rank"))
    votes, _ = read_votes(tmp_path / "again.csv")
    again = compare(votes, {"human": CROWD})
    assert again == comparisons_of(run.votes, run.manifest["judges"])
    with pytest.raises(UsageError, match="no judge 'ana': name one of human"):
        export_comparisons(tmp_path / "run", "evalica", "ana")
    import_votes(tmp_path / "again.csv", tmp_path / "again", reference="ape", resamples=20)
    merged = merge([tmp_path / "run", tmp_path / "again"], tmp_path / "both")
    assert (merged.n_votes, merged.n_again) == (80, 0)
    assert merged.run.ratings["judges"]["human"]["n_comparisons"] == 80


def test_a_board_takes_what_most_of_a_crowd_said(tmp_path: Path) -> None:
    board = make_board(tmp_path / "board")
    run = write_arena_run(tmp_path / "arena", {"a": 0.3, "b": 0.0})
    log, manifest = run / "votes.jsonl", run / "run.json"
    lines = log.read_text().splitlines()
    turn = {"first": "second", "second": "first"}
    vote = json.loads(lines[0])
    lines[0] = json.dumps(vote | {"verdict": turn[vote["verdict"]]})
    log.write_text("\n".join(lines) + "\n")
    entered = [json.loads(enter(board, [run], "a").read_bytes())["arena_scoring"]["opponents"]]
    manifest.write_text(manifest.read_text().replace('"orders": 2', '"orders": 0'))
    entered += [json.loads(enter(board, [run], "a").read_bytes())["arena_scoring"]["opponents"]]
    assert entered[0] == entered[1]
    assert entered[0]["b"][0] == "T"
    assert set(entered[0]["b"]) == {"W", "T", "L"}


def _ratings(run: ArenaRun) -> list[Rating]:
    (standing,) = run.ratings["judges"].values()
    return standing["ratings"]
