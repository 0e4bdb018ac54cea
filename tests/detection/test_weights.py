"""Weights rounded for small files."""

from __future__ import annotations

import pytest
import torch

from realbench.detection.weights import pack, unpack


def test_packed_matrices_are_off_by_half_a_step_at_most() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = (
        torch.randn((256, 3, 14, 14), generator=generator)
        * torch.logspace(-3, 1, 256)[:, None, None, None]
    )
    packed = pack({"a.weight": matrix})
    assert packed["a.weight"].dtype == torch.int8
    back = unpack(packed)["a.weight"]
    step = matrix.abs().flatten(1).amax(dim=1) / 127
    error = (back - matrix).abs().flatten(1).amax(dim=1)
    assert (error <= 0.5 * step + 127 * step * 2**-11).all()  # and the scale's own rounding


def test_small_tensors_stay_in_half_precision_and_integers_as_they_are() -> None:
    state = {
        "bias": torch.randn(70_000),
        "positions": torch.randn(1, 257, 384),
        "small": torch.randn(20, 20),
        "count": torch.tensor(3),
    }
    packed = pack(state)
    assert set(packed) == set(state)
    assert packed["positions"].dtype == torch.float16
    back = unpack(packed)
    for name, value in state.items():
        assert back[name].dtype == value.dtype
        assert torch.allclose(back[name].double(), value.double(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rows", [2, 300])
def test_packing_again_changes_nothing(rows: int) -> None:
    matrix = torch.randn((rows, 10_000), generator=torch.Generator().manual_seed(rows))
    once = unpack(pack({"w": matrix}))
    twice = unpack(pack(once))
    assert torch.allclose(once["w"], twice["w"], rtol=0, atol=float(matrix.abs().max()) * 1e-3)


def test_rows_of_zeros_stay_zero() -> None:
    matrix = torch.zeros((200, 100))
    assert unpack(pack({"w": matrix}))["w"].abs().max() == 0


@pytest.mark.parametrize("bits", [3, 5, 6])
def test_fewer_bits_are_off_by_half_a_step_of_their_group(bits: int) -> None:
    name = "backbone.blocks.0.mlp.fc1.weight"
    matrix = torch.randn((96, 192), generator=torch.Generator().manual_seed(bits))
    matrix *= torch.logspace(-3, 1, 96)[:, None]
    packed = pack({name: matrix}, bits)
    scales = 96 * 192 // 64 * 16
    assert sum(8 * part.nbytes for part in packed.values()) == 96 * 192 * bits + scales
    back = unpack(packed)[name]
    groups, found = matrix.view(96, 3, 64), back.view(96, 3, 64)
    most = 2 ** (bits - 1) - 1
    step = groups.abs().amax(dim=2, keepdim=True) / most
    # half a step, and the rounding of the scale, which has 11 bits or a fixed step near zero
    assert ((found - groups).abs() <= 0.5 * step + most * (step * 2**-11 + 2**-25)).all()
    again = unpack(pack({name: back}, bits))[name]
    assert torch.equal(again, back)


def test_a_packed_matrix_that_was_cut_is_refused() -> None:
    name = "backbone.blocks.0.mlp.fc1.weight"
    packed = pack({name: torch.randn((96, 192))}, 5)
    with pytest.raises(RuntimeError, match="11420 bytes do not hold 18432 packed values"):
        unpack(packed | {name: packed[name][:-100]})
