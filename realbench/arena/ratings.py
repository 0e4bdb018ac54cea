"""From comparisons to ratings with intervals: what ``ratings.json`` holds.

All intervals are 95 % and come from a bootstrap over prompts, each with all its comparisons, since
votes on one prompt are not independent. The resamples are the same for all of a judge's figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from realbench import stats
from realbench.arena import bradley_terry, elo, ranking, true_skill
from realbench.arena.anchored import anchored
from realbench.arena.nuisances import controlled
from realbench.arena.records import JudgeAgreement, JudgePair, Rating, Ratings, Standing
from realbench.arena.tally import (
    FloatArray,
    IndexArray,
    Tally,
    from_draws,
    share_from_draws,
    tally,
    without_interval,
)
from realbench.arena.votes import Comparison, Vote
from realbench.stats import Interval
from realbench.stats.record import Estimate, estimate, rounded

HUMAN = "human"
"""The judge that is a person; several are told apart as ``human:NAME``."""


def judge_agreement(
    comparisons: Sequence[Comparison], *, resamples: int, seed: int
) -> JudgeAgreement | None:
    """Agreement on the pairs and prompts that judges have in common; None for a single judge.

    Returns:
        ``krippendorff_alpha`` of all judges; for each two of them ``cohen_kappa`` and
        ``agreement``, the share of their common pairs with the same result, a tie being one; and
        under ``with_human`` that share for each other judge, with what most people said (as many
        for one side as for the other, or most for a tie, is a tie); None without human votes.
    """
    judges = sorted({one.judge for one in comparisons})
    if len(judges) < 2:
        return None
    units = sorted({(one.prompt_id, one.a, one.b) for one in comparisons})
    column = {unit: n for n, unit in enumerate(units)}
    row = {judge: n for n, judge in enumerate(judges)}
    counts, sums = np.zeros((2, len(judges), len(units)))
    for one in comparisons:
        at = row[one.judge], column[one.prompt_id, one.a, one.b]
        counts[at] += 1
        sums[at] += one.score
    # A crowd's result is that of its majority; that of one comparison is its score.
    most = (np.sign(sums - counts / 2) + 1) / 2
    table = np.where(counts > 0, most, np.nan)
    _, prompts = np.unique([prompt for prompt, _, _ in units], return_inverse=True)
    alpha = stats.krippendorff_alpha(table, prompts, resamples=resamples, seed=seed)
    pairs: list[JudgePair] = []
    for a, b in combinations(judges, 2):
        common = ~np.isnan(table[row[a]] + table[row[b]])
        one, other, groups = table[row[a], common], table[row[b], common], prompts[common]
        kappa = stats.cohen_kappa(one, other, groups, resamples=resamples, seed=seed)
        same = stats.bootstrap_share(one == other, groups, resamples=resamples, seed=seed)
        pairs.append(
            {
                "a": a,
                "b": b,
                "cohen_kappa": estimate(kappa),
                "agreement": estimate(same),
                "n": int(common.sum()),
            }
        )
    people = np.array([is_human(judge) for judge in judges])
    with_human = {
        judge: estimate(_share_of_same(table[row[judge]], table[people], prompts, resamples, seed))
        for judge in judges
        if people.any() and not is_human(judge)
    }
    return {"krippendorff_alpha": estimate(alpha), "pairs": pairs, "with_human": with_human or None}


def is_human(judge: str) -> bool:
    """Whether a judge of this name is a person."""
    return judge.partition(":")[0] == HUMAN


def belongs(judge: str, anchor: str) -> bool:
    """Whether a judge is the anchor, or one of the people who are."""
    return is_human(judge) if anchor == HUMAN else judge == anchor


def _share_of_same(
    scores: FloatArray, people: FloatArray, prompts: IndexArray, resamples: int, seed: int
) -> Interval:
    """Share of pairs on which a judge says what most people say.

    Args:
        scores: The judge's, (units,), nan where it said nothing.
        people: Each person's, (persons, units).
        prompts: Of each unit.
    """
    said = ~np.isnan(people)
    balance = np.where(said, people - 0.5, 0.0).sum(axis=0)
    for_ties = (people == 0.5).sum(axis=0) * 2 > said.sum(axis=0)
    most = np.where(for_ties, 0.5, (np.sign(balance) + 1) / 2)
    common = said.any(axis=0) & ~np.isnan(scores)
    return stats.bootstrap_share(
        scores[common] == most[common], prompts[common], resamples=resamples, seed=seed
    )


def position_bias(
    votes: Iterable[Vote], comparisons: Iterable[Comparison], *, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Return ``first_share`` and ``inconsistent_share`` with intervals over prompts.

    ``first_share`` is the share of decisive votes for the picture shown first, 0.5 without bias;
    ``inconsistent_share`` that of the pairs, among those asked in both orders, on which the two
    orders did not say the same. Where both orders are asked for, they balance each other, and the
    interval of ``first_share``, which takes no credit for that, is wider than it need be.
    """
    shares = {
        "first_share": [
            (vote.verdict == "first", vote.prompt_id)
            for vote in votes
            if vote.verdict in ("first", "second")
        ],
        "inconsistent_share": [
            (not one.consistent, one.prompt_id) for one in comparisons if one.consistent is not None
        ],
    }
    found: dict[str, Interval | None] = dict.fromkeys(shares)
    for name, share in shares.items():
        if share:
            values, prompts = zip(*share, strict=True)
            found[name] = stats.bootstrap_share(values, prompts, resamples=resamples, seed=seed)
    return {name: estimate(share) for name, share in found.items()}


COMBINED = "combined"


def rate(
    comparisons: Sequence[Comparison],
    contestants: Sequence[str],
    *,
    reference: str | None = None,
    votes: Sequence[Vote] = (),
    resamples: int = 1000,
    seed: int = 0,
    anchor: str | None = None,
    measured: Mapping[tuple[str, str], FloatArray] | None = None,
) -> Ratings:
    """Rate contestants by their comparisons, for each judge and for all judges together.

    Args:
        comparisons: Of any number of judges.
        contestants: All names, also of those that were never compared.
        reference: The contestant that is real photographs, if there is one.
        votes: What the comparisons were made of, for position bias, invalid answers and usage.
        resamples: How often the prompts are drawn.
        seed: Of everything random; equal arguments give equal results.
        anchor: The judge, or ``"human"`` for all people, on whose scale the others' comparisons
            are brought, see :mod:`realbench.arena.anchored`.
        measured: The pictures' covariates, by contestant and prompt id, to be controlled for, see
            :mod:`realbench.arena.nuisances`.

    Returns:
        Plain JSON types; None where there is no figure, as in intervals over a single prompt.
        Contestants that no chain of comparisons links have no common scale: ranks and means
        then hold within each linked part, and ``notes`` says so.

    Raises:
        ValueError: a comparison or the reference names somebody who is not a contestant, or
            ``resamples`` is below 1.
    """
    names = list(contestants)
    if len(set(names)) < len(names):
        raise ValueError("a contestant is named twice")
    if reference is not None and reference not in names:
        raise ValueError(f"the reference {reference} is not among the contestants")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    by_judge: dict[str, list[Comparison]] = defaultdict(list)
    votes_by_judge: dict[str, list[Vote]] = defaultdict(list)
    for one in comparisons:
        by_judge[one.judge].append(one)
    for vote in votes:
        votes_by_judge[vote.judge].append(vote)
    notes: list[str] = []

    def standing(judge: str, own: Sequence[Comparison], cast: Sequence[Vote]) -> Standing:
        return _standing(judge, own, cast, names, reference, resamples, seed, notes)

    judges = sorted({*by_judge, *votes_by_judge})
    standings = {judge: standing(judge, by_judge[judge], votes_by_judge[judge]) for judge in judges}
    several = len(by_judge) > 1
    brought, held = None, None
    if anchor is not None:
        theirs = [one for one in comparisons if belongs(one.judge, anchor)]
        others = [one for one in comparisons if not belongs(one.judge, anchor)]
        found = anchored(
            *(combine(theirs), combine(others), names),
            anchor=anchor,
            resamples=resamples,
            seed=seed,
        )
        if isinstance(found, str):
            notes.append(found)
        else:
            brought = found
    if measured is not None:
        alike = controlled(combine(comparisons), measured, names, resamples=resamples, seed=seed)
        if isinstance(alike, str):
            notes.append(alike)
        else:
            held = alike
    return {
        "contestants": names,
        "reference": reference,
        "resamples": resamples,
        "seed": seed,
        "judges": standings,
        "combined": standing(COMBINED, combine(comparisons), votes) if several else None,
        "agreement": judge_agreement(comparisons, resamples=resamples, seed=seed),
        "anchored": brought,
        "nuisances": held,
        "notes": notes,
    }


def combine(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Average the scores that several judges gave a pair on a prompt; every judge counts the same.

    ``consistent`` is false where any judge's orders disagreed, None where none was asked in both.
    """
    groups: dict[tuple[str, str, str], list[Comparison]] = defaultdict(list)
    for one in comparisons:
        groups[one.prompt_id, one.a, one.b].append(one)
    merged = []
    for (prompt, a, b), group in groups.items():
        asked = [one.consistent for one in group if one.consistent is not None]
        score = sum(one.score for one in group) / len(group)
        merged.append(Comparison(COMBINED, prompt, a, b, score, all(asked) if asked else None))
    return merged


def _standing(
    judge: str,
    comparisons: Sequence[Comparison],
    votes: Sequence[Vote],
    contestants: Sequence[str],
    reference: str | None,
    resamples: int,
    seed: int,
    notes: list[str],
) -> Standing:
    counted = tally(comparisons, contestants)
    notes.extend(f"{judge}: {note}" for note in _notes(counted))
    usage = {}
    for key in ("input_tokens", "output_tokens", "cost"):
        stated = [vote.usage[key] for vote in votes if key in vote.usage]
        usage[key] = rounded(sum(stated)) if stated else None
    place = None if reference is None else counted.contestants.index(reference)
    systems = _systems(counted, place, resamples, seed)
    points, draws = systems["bradley_terry"]
    components = counted.components()
    order = ranking.order_of(points, components)
    pairs = ranking.pair_differences(counted, points, draws, order, components)
    ranks = ranking.ranks(points, order, components, pairs)
    return {
        "n_comparisons": counted.n,
        "n_prompts": len(counted.prompts),
        "position_bias": position_bias(votes, comparisons, resamples=resamples, seed=seed),
        "n_invalid": sum(vote.verdict == "invalid" for vote in votes),
        "usage": usage,
        "ratings": [_row(counted, systems, place, n, ranks[n]) for n in order],
        "win_matrix": ranking.win_matrix(counted, order),
        "pairs": pairs,
        "intransitive": ranking.intransitive(counted),
    }


_Systems = dict[str, tuple[FloatArray, FloatArray]]
"""By rating: every contestant's estimate (k,), and the resamples of it (rows, k)."""


def _systems(counted: Tally, place: int | None, resamples: int, seed: int) -> _Systems:
    """Rate by every system; ``place`` is the reference's."""
    names = ("bradley_terry", "elo", "win_rate", "win_rate_vs_reference", "trueskill")
    k = len(counted.contestants)
    if not counted.n:
        nothing = np.full(k, np.nan)
        return dict.fromkeys(names, (nothing, nothing[None]))
    rng = np.random.default_rng(seed)
    every = np.abs(counted.incidence)
    only = every * (0.0 if place is None else every[:, [place]])
    scores, counts = counted.pair_scores[None], counted.pair_counts[None]
    points = bradley_terry.bradley_terry(counted)
    elo_points, error = elo.elo(counted, rng)
    skills = true_skill.true_skill(counted, rng)
    rates = [_win_rates(counted, scores, counts, against)[0] for against in (every, only)]
    ties = bradley_terry.virtual_ties(counted)
    expected = elo.expected(counted, scores + ties / 2, counts + ties)
    blocks: list[tuple[FloatArray, ...]] = []
    for scores, counts in counted.resamples(rng, resamples):
        played = bradley_terry.with_virtual_results(counted, scores, counts, rng)
        wander = rng.normal(0, np.nan_to_num(error), (len(scores), k))
        blocks.append(
            (
                bradley_terry.resampled(counted, points, *played),
                elo.expected(counted, *played) - expected + elo_points + wander,
                _win_rates(counted, scores, counts, every),
                _win_rates(counted, scores, counts, only),
            )
        )
    draws = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    draws.append(true_skill.resampled(counted, resamples, rng))
    estimates = (points, elo_points, *rates, skills)
    return dict(zip(names, zip(estimates, draws, strict=True), strict=True))


def _win_rates(
    counted: Tally, scores: FloatArray, counts: FloatArray, against: FloatArray
) -> FloatArray:
    """Mean score of each contestant, float64 (rows, k), over the pairs that ``against`` (Q, k)
    marks as its own; nan where a row has none."""
    first = np.where(counted.incidence > 0, against, 0.0)
    second = against - first
    with np.errstate(invalid="ignore"):
        return (scores @ first + (counts - scores) @ second) / (counts @ against)


def _row(
    counted: Tally,
    systems: _Systems,
    place: int | None,
    n: int,
    rank: tuple[int | None, int | None, int | None],
) -> Rating:

    def found(system: str) -> tuple[float, FloatArray]:
        estimates, draws = systems[system]
        return float(estimates[n]), draws[:, n]

    first, second = counted.first[counted.pair], counted.second[counted.pair]
    own = (first == n) | (second == n)
    score = np.where(first == n, counted.score, 1 - counted.score)[own]
    size = int(own.sum()), len(np.unique(counted.prompt[own]))
    versus = own & ((first == place) | (second == place)) & (n != place)
    against = int(versus.sum()), len(np.unique(counted.prompt[versus]))
    reference = share_from_draws(*found("win_rate_vs_reference"), *against) if against[0] else None
    return {
        "contestant": counted.contestants[n],
        "rank": rank[0],
        "rank_low": rank[1],
        "rank_high": rank[2],
        "n_comparisons": size[0],
        "n_prompts": size[1],
        "wins": int((score > 0.5).sum()),
        "ties": int((score == 0.5).sum()),
        "losses": int((score < 0.5).sum()),
        "win_rate": share_from_draws(*found("win_rate"), *size),
        "bradley_terry": from_draws(*found("bradley_terry"), *size),
        "elo": from_draws(*found("elo"), *size),
        "trueskill": _skill(*found("trueskill"), *size),
        "win_rate_vs_reference": reference,
    }


def _skill(mu: float, draws: FloatArray, count: int, prompts: int) -> Estimate:
    """A TrueSkill mean with its interval: the resamples are too few for percentiles."""
    from scipy import special

    if prompts < 2:
        return without_interval(mu, count, prompts)
    t = special.stdtrit(prompts - 1, 0.975)
    half = t * float(draws.std()) * np.sqrt(prompts / (prompts - 1))
    return estimate(Interval(mu, mu - half, mu + half, count, prompts))


def _notes(counted: Tally) -> list[str]:
    notes = []
    played = counted.contestant_counts > 0
    absent = [name for name, has in zip(counted.contestants, played, strict=True) if not has]
    if not counted.n:
        return ["no comparison, so no rating"]
    if absent:
        notes.append(f"no comparison with {', '.join(absent)}, so no rating")
    parts = np.unique(counted.components()[played])
    if len(parts) > 1:
        notes.append(
            f"the comparisons fall into {len(parts)} parts that no comparison links; ratings and "
            "ranks hold within each part only"
        )
    if len(counted.prompts) == 1:
        notes.append("one prompt only, so no intervals")
    if counted.n > true_skill.GAMES:
        notes.append(
            f"TrueSkill was computed from {true_skill.GAMES:,} comparisons drawn at random of the "
            f"{counted.n:,}"
        )
    return notes
