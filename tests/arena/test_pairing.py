"""The schedule of all pairs: complete, repeatable, and balanced wherever it is cut."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, islice

from hypothesis import given
from hypothesis import strategies as st

from realbench.arena.turn import all_pairs, count_pairs, shown_orders

NAMES = st.text("abc", min_size=1, max_size=3)
PROMPTS = st.dictionaries(
    NAMES, st.sets(st.text("xyz", min_size=1, max_size=2), max_size=8), max_size=7
)


def full(n_contestants: int, n_prompts: int) -> dict[str, set[str]]:
    ids = {f"p{n}" for n in range(n_prompts)}
    return {f"m{n:02}": ids for n in range(n_contestants)}


@given(PROMPTS, st.integers(0, 5))
def test_every_pair_comes_once_on_every_prompt_that_both_have(
    prompts: dict[str, set[str]], seed: int
) -> None:
    pairs = list(all_pairs(prompts, seed=seed))
    expected = {
        (prompt, a, b)
        for a, b in combinations(sorted(prompts), 2)
        for prompt in prompts[a] & prompts[b]
    }
    assert set(pairs) == expected
    assert len(pairs) == len(expected) == count_pairs(prompts)


@given(st.integers(2, 9), st.integers(1, 7), st.integers(0, 3), st.floats(0, 1))
def test_a_schedule_that_is_cut_anywhere_is_balanced(
    n_contestants: int, n_prompts: int, seed: int, part: float
) -> None:
    prompts = full(n_contestants, n_prompts)
    n = int(part * count_pairs(prompts))
    begun = list(islice(all_pairs(prompts, seed=seed), n))

    met = Counter(dict.fromkeys(combinations(prompts, 2), 0))
    met.update((a, b) for _, a, b in begun)
    assert max(met.values()) - min(met.values()) <= 1
    played = Counter(dict.fromkeys(prompts, 0))
    played.update(name for _, a, b in begun for name in (a, b))
    assert max(played.values()) - min(played.values()) <= 2
    about = Counter(dict.fromkeys(prompts["m00"], 0))
    about.update(prompt for prompt, _, _ in begun)
    # In a sweep the prompts take turns; only where it ends may one come too early or late.
    sweeps = n // len(met) + 1
    assert max(about.values()) - min(about.values()) <= sweeps


def test_the_order_is_the_seeds_and_not_that_of_the_folders() -> None:
    prompts = full(6, 4)
    backwards = dict(reversed(prompts.items()))
    assert list(all_pairs(prompts, seed=3)) == list(all_pairs(backwards, seed=3))
    assert list(all_pairs(prompts, seed=3)) != list(all_pairs(prompts, seed=4))


def test_which_picture_comes_first_is_even_and_stays_when_others_join() -> None:
    pairs = list(all_pairs(full(20, 20)))
    firsts = [shown_orders(pair, orders=1)[0] for pair in pairs]
    share = sum(first == a for (_, a, _), (first, _) in zip(pairs, firsts, strict=True))
    assert 0.47 < share / len(pairs) < 0.53  # 3,800 coins: four standard deviations
    assert firsts == [shown_orders(pair, orders=1)[0] for pair in pairs]
    assert firsts != [shown_orders(pair, orders=1, seed=1)[0] for pair in pairs]
    for pair in pairs[:20]:
        (one,) = shown_orders(pair, orders=1)
        assert shown_orders(pair, orders=2) == [one, one[::-1]]
