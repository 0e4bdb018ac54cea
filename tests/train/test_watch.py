"""The hacking watch: what it warns of, what it lets pass, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from realbench.errors import RealBenchError
from realbench.train.watch import hacking_warning


def watched(rewards: np.ndarray, heldout: np.ndarray) -> list[str | None]:
    """Watch a run, evaluation by evaluation; both are (evaluations, prompts)."""
    values = {
        10 * t: {"reward": reward.tolist(), "heldout": held.tolist()}
        for t, (reward, held) in enumerate(zip(rewards, heldout, strict=True))
    }
    steps = list(values)
    return [
        hacking_warning({step: values[step] for step in steps[: n + 1]}) for n in range(len(steps))
    ]


def run(
    rewards: np.ndarray, heldout: np.ndarray, *, noise: float, n: int, seed: int
) -> list[str | None]:
    """Watch a run whose true means are given, over ``n`` prompts that differ from one another."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(-0.2, 0.2, n)
    values = [
        mean + level + rng.normal(0, noise, n)
        for pair in zip(rewards, heldout, strict=True)
        for mean in pair
    ]
    return watched(np.stack(values[::2]), np.stack(values[1::2]))


RISING = np.linspace(0.4, 0.8, 20)
FLAT = np.full(20, 0.5)


def test_hacking_is_found_and_described() -> None:
    warnings = run(RISING, np.linspace(0.5, 0.3, 20), noise=0.07, n=64, seed=0)
    assert warnings[0] is None
    found = [one for one in warnings if one]
    assert found
    assert "\n" not in found[-1]
    assert found[-1].startswith("step 190: the reward rises while the held-out score falls: since")
    assert "over 64 prompts" in found[-1]
    assert "95 % interval -0." in found[-1]


@pytest.mark.parametrize(
    ("rewards", "heldout"),
    [
        (RISING, FLAT),
        (RISING, RISING),  # as it should be
        (FLAT, np.linspace(0.5, 0.3, 20)),  # the model gets worse, and the reward sees it too
        (RISING[::-1], np.linspace(0.5, 0.3, 20)),
    ],
)
def test_other_runs_are_let_pass(rewards: np.ndarray, heldout: np.ndarray) -> None:
    for seed in range(5):
        assert not any(run(rewards, heldout, noise=0.07, n=64, seed=seed))


def test_a_turn_after_a_good_start_is_found() -> None:
    """At its end the held-out score is above its start: only its best tells of the fall."""
    heldout = np.concatenate([np.linspace(0.4, 0.6, 10), np.linspace(0.6, 0.45, 10)])
    warnings = run(RISING, heldout, noise=0.05, n=64, seed=1)
    assert not any(warnings[:10])
    assert warnings[-1] is not None
    since = int(warnings[-1].partition("since step ")[2].split()[0])
    assert 50 <= since <= 120


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Under a held-out score that does not fall, at most 5 % of runs are ever warned of."""
    alarms = sum(
        any(run(np.linspace(0.3, 0.9, 25), np.full(25, 0.5), noise=0.1, n=12, seed=seed))
        for seed in range(200)
    )
    # 19 or more of 200 would come about once in a hundred times if it were 5 %.
    assert alarms <= stats.binom.isf(0.01, 200, 0.05)


def test_a_clear_fall_is_rarely_missed() -> None:
    found = sum(
        any(run(RISING, np.linspace(0.5, 0.38, 20), noise=0.07, n=64, seed=seed))
        for seed in range(40)
    )
    assert found >= 38


def test_the_levels_add_up_to_the_whole() -> None:
    t = np.arange(1, 100_000)
    assert 0.9999 < np.sum(6 / (np.pi * t) ** 2) < 1


def test_a_change_has_the_interval_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(15)
    after = before + 0.5 + rng.normal(0, 0.01, 15)
    warning = watched(np.stack([before, after]), np.stack([after, before]))[1]
    expected = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert warning is not None
    assert f"from {before.mean():.3f} to {after.mean():.3f}" in warning
    assert f"95 % interval {expected.low:+.3f} to {expected.high:+.3f}" in warning


def test_the_same_change_of_every_prompt_is_certain_and_none_is_none() -> None:
    start = np.array([0.1, 0.2, 0.3])
    found = watched(
        np.stack([start, start, start + 1e-8, start + 0.5]),
        np.stack([start, start, start - 1e-8, start - 0.25]),
    )
    assert found[:3] == [None] * 3
    assert found[3] is not None


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(RealBenchError, match="held-out score of a prompt is no number"):
        watched(np.array([[0.1, 0.2]]), np.array([[0.1, np.nan]]))
