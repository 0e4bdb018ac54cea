"""The running mean of the trained weights."""

from __future__ import annotations

import pytest
import torch

from realbench.train.ema import Ema


def test_it_is_the_exponential_mean_with_its_warm_up() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    ema = Ema({"w": weight}, decay=0.5)
    expected = 1.0
    for n, value in enumerate([2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0], start=1):
        weight.data.fill_(value)
        ema.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
        assert ema.mean["w"].item() == pytest.approx(expected, rel=1e-6)


def test_it_is_put_in_place_and_taken_back_even_after_an_error() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    ema = Ema({"w": weight}, decay=0.9, every=2)
    weight.data += 10
    ema.update()
    assert ema.mean["w"].tolist() == [1.0, 2.0]  # every second step
    seen: list[float] = []
    with pytest.raises(ZeroDivisionError), ema.in_place():
        seen += [*weight.tolist(), 1 // 0]
    with ema.in_place():
        seen += weight.tolist()
    assert seen == [1.0, 2.0]
    assert weight.tolist() == [11.0, 12.0]
    ema.update()
    assert ema.mean["w"].tolist() == pytest.approx([1 + 10 * 9 / 11, 2 + 10 * 9 / 11])
