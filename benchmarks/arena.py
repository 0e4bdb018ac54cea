"""How many comparisons a schedule needs, how well intervals cover, and how long rating takes.

    python benchmarks/arena.py schedules     # all against active, 30 models of known strength
    python benchmarks/arena.py coverage      # 200 simulated runs of each design
    python benchmarks/arena.py speed         # a million votes, beside evalica's own bootstrap

Votes are simulated from the Bradley–Terry model with an effect of each model on each prompt, so
that the votes on one prompt depend on each other, as real ones do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np
from scipy import special, stats

from realbench.arena import bradley_terry
from realbench.arena.active import ActiveSchedule
from realbench.arena.ratings import rate
from realbench.arena.tally import Tally, tally
from realbench.arena.votes import Comparison

PROMPT_EFFECT = 0.5  # standard deviation in log-odds of a model's effect on a prompt
BATCH = 30


class World:
    """Models of known strength, and what a judge says of them.

    Attributes:
        strengths: In log-odds (k,).
        names: Of the models.
    """

    def __init__(self, strengths: np.ndarray, prompts: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        k = len(strengths)
        self.strengths = strengths
        self.names = [f"model-{n:02}" for n in range(k)]
        self.prompts = [f"{n:05}" for n in range(prompts)]
        self._effects = rng.normal(0, PROMPT_EFFECT, (prompts, k))
        self._chances = rng.random((prompts, k, k))

    def compare(self, prompt: int, a: int, b: int) -> Comparison:
        """The result of one pair, the same whenever it is asked for; a < b."""
        own = self.strengths + self._effects[prompt]
        wins = self._chances[prompt, a, b] < special.expit(own[a] - own[b])
        names = self.names
        return Comparison("judge", self.prompts[prompt], names[a], names[b], float(wins), None)

    def expected_ratings(self) -> np.ndarray:
        """The ratings of endless votes: prompt effects draw the mean strengths together."""
        k = len(self.names)
        first, second = np.triu_indices(k, 1)
        nodes, weights = np.polynomial.hermite_e.hermegauss(41)
        gaps = (self.strengths[first] - self.strengths[second])[:, None]
        chances = special.expit(gaps + np.sqrt(2) * PROMPT_EFFECT * nodes) @ weights
        scores = chances / weights.sum()
        pairs = np.arange(len(first))
        endless = Tally(self.names, ["all"], first, second, np.zeros_like(pairs), pairs, scores)
        solved = bradley_terry.solve(endless, scores[None], np.ones_like(scores)[None], np.zeros(k))
        return solved[0] * bradley_terry.POINTS + bradley_terry.MEAN


# --- Schedules -----------------------------------------------------------------------------------


def correlation(world: World, comparisons: Sequence[Comparison]) -> float:
    """Spearman's correlation of ratings and strengths."""
    ratings = bradley_terry.bradley_terry(tally(comparisons, world.names))
    filled = np.nan_to_num(ratings, nan=bradley_terry.MEAN)
    return float(stats.spearmanr(filled, world.strengths).statistic)


def course_of_all(world: World, most: int, seed: int) -> list[float]:
    """Correlation after each batch of the schedule ``all``, in random order."""
    units = [
        (prompt, a, b)
        for prompt in range(len(world.prompts))
        for a, b in combinations(range(len(world.names)), 2)
    ]
    order = np.random.default_rng(seed).permutation(len(units))[:most]
    found = [world.compare(*units[n]) for n in order]
    return [correlation(world, found[:n]) for n in range(BATCH, most + 1, BATCH)]


def course_of_active(world: World, most: int, seed: int) -> list[float]:
    """Correlation after each batch of the schedule ``active``."""
    place = {name: n for n, name in enumerate(world.names)}
    shared = dict.fromkeys(combinations(world.names, 2), world.prompts)
    schedule = ActiveSchedule(world.names, shared, seed)
    found: list[Comparison] = []
    course = []
    while len(found) < most:
        batch = schedule.next_batch(found, BATCH)
        if not batch:
            break
        found += [world.compare(int(prompt), place[a], place[b]) for prompt, a, b in batch]
        course.append(correlation(world, found))
    return course


def reached(courses: np.ndarray, goal: float) -> float:
    """Comparisons after which the mean correlation of the worlds stays at the goal.

    The mean, since a single course swings: the one that swings more would be over the goal first.
    """
    below = np.flatnonzero(courses.mean(axis=0) < goal)
    last = below[-1] + 1 if len(below) else 0
    return float((last + 1) * BATCH) if last < courses.shape[1] else float("nan")


def schedules(models: int, seeds: int, most: int) -> None:
    """Print what each schedule needs to reach the same mean correlation, and the ratio.

    The intervals are percentiles of a bootstrap over the simulated worlds.
    """
    draws = np.random.default_rng(0).integers(0, seeds, (1000, seeds))
    for spread in (600, 1200, 1800):
        every, active = [], []
        for seed in range(seeds):
            even = np.linspace(0, spread / bradley_terry.POINTS, models)
            strengths = np.random.default_rng(seed).permutation(even)
            world = World(strengths, 400, seed)
            every.append(course_of_all(world, most, seed))
            active.append(course_of_active(world, most, seed))
        print(f"{models} models over {spread} Elo points, {seeds} seeds", flush=True)
        length = min(map(len, active))  # shorter where all neighbours were apart
        one, other = np.array(every), np.array([course[:length] for course in active])
        for goal in (0.95, 0.97, 0.98, 0.99, 0.995):
            needs, fewer = reached(one, goal), reached(other, goal)
            if np.isnan(needs + fewer):
                print(f"  {goal}: all {needs:.0f}, active {fewer:.0f} (nan: beyond {most})")
                continue
            ratios = [reached(other[n], goal) / reached(one[n], goal) for n in draws]
            low, high = np.nanquantile(ratios, [0.025, 0.975])
            print(
                f"  {goal}: all {needs:.0f}, active {fewer:.0f}; active / all "
                f"{fewer / needs:.2f} (95 % {low:.2f} to {high:.2f}), aim 0.5",
                flush=True,
            )


# --- Coverage ------------------------------------------------------------------------------------


def coverage(runs: int) -> None:
    """Print how often 95 % intervals hold the truth, mean over models; 93 to 97 % is the aim."""
    for models, prompts, spread in ((8, 60, 600), (8, 357, 600), (8, 15, 600), (20, 60, 1200)):
        inside: dict[str, list[bool]] = {"bradley_terry": [], "elo": [], "difference": []}
        for seed in range(runs):
            rng = np.random.default_rng(seed)
            strengths = rng.uniform(0, spread / bradley_terry.POINTS, models)
            world = World(strengths, prompts, seed + 1)
            found = [
                world.compare(prompt, a, b)
                for prompt in range(prompts)
                for a, b in combinations(range(models), 2)
            ]
            truth = dict(zip(world.names, world.expected_ratings(), strict=True))
            standing = rate(found, world.names, resamples=400, seed=seed)["judges"]["judge"]
            for row in standing["ratings"]:
                for system in ("bradley_terry", "elo"):
                    inside[system].append(holds(row[system], truth[row["contestant"]]))
            for pair in standing["pairs"]:
                gap = truth[pair["a"]] - truth[pair["b"]]
                inside["difference"].append(holds(pair["difference"], gap))
        votes = prompts * models * (models - 1) // 2
        shares = ", ".join(f"{name} {np.mean(hits):.3f}" for name, hits in inside.items())
        print(f"{models} models, {prompts} prompts, {votes} comparisons, {runs} runs: {shares}")


def holds(estimate: dict[str, float], truth: float) -> bool:
    return estimate["low"] <= truth <= estimate["high"]


# --- Speed ---------------------------------------------------------------------------------------


def million(votes: int, models: int) -> list[Comparison]:
    """As many comparisons of some models, each on one of enough prompts."""
    rng = np.random.default_rng(0)
    pairs = list(combinations(range(models), 2))
    prompts = -(-votes // len(pairs))
    world = World(rng.normal(0, 1, models), prompts, 1)
    found = [world.compare(prompt, a, b) for prompt in range(prompts) for a, b in pairs]
    return found[:votes]


def speed(votes: int, models: int, resamples: int) -> None:
    """Print the seconds that ratings with intervals take, and evalica's bootstraps alone."""
    import evalica

    comparisons = million(votes, models)
    names = sorted({name for one in comparisons for name in (one.a, one.b)})

    def ours() -> None:
        rate(comparisons, names, resamples=resamples)

    xs, ys = [one.a for one in comparisons], [one.b for one in comparisons]
    winners = [evalica.Winner.X if one.score else evalica.Winner.Y for one in comparisons]

    def theirs(method: Callable[..., object]) -> Callable[[], None]:
        def run() -> None:
            evalica.bootstrap(
                method,  # type: ignore[arg-type]
                xs,
                ys,
                winners,
                n_resamples=resamples,
                bootstrap_method="percentile",
                random_state=0,
            )

        return run

    print(f"{len(comparisons):,} comparisons, {models} models, {resamples} resamples", flush=True)
    took = timed([("rate (Bradley–Terry, Elo, TrueSkill and all else)", ours)])[0]
    methods = [("bradley_terry", evalica.bradley_terry), ("elo", evalica.elo)]
    others = timed([(f"evalica.bootstrap of {name}", theirs(method)) for name, method in methods])
    print(f"  evalica's two / ours: {sum(others) / took:.1f}; Elo alone {others[1] / took:.1f}")


def timed(actions: Iterable[tuple[str, Callable[[], None]]]) -> list[float]:
    seconds = []
    for name, action in actions:
        start, used = time.perf_counter(), time.process_time()
        action()
        seconds.append(time.perf_counter() - start)
        used = time.process_time() - used
        print(f"  {name}: {seconds[-1]:.1f} s, {used:.1f} s of processor time", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=["schedules", "coverage", "speed"])
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=8, help="simulated worlds of each spread")
    parser.add_argument("--most", type=int, default=4500, help="comparisons of a schedule at most")
    parser.add_argument("--runs", type=int, default=200, help="simulated runs of each design")
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.what == "schedules":
        schedules(arguments.models, arguments.seeds, arguments.most)
    elif arguments.what == "coverage":
        coverage(arguments.runs)
    else:
        speed(arguments.votes, arguments.models, arguments.resamples)


if __name__ == "__main__":
    main()
