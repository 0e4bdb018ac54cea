"""Batches that fit: found beforehand, and halved where memory is short after all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from realbench.detection.detector import is_memory_shortage
from realbench.scoring.layout import best_batch, find_batch_sizes
from realbench.scoring.pipeline import score_batch
from tests.fakes import FakeDetector


@given(
    room=st.integers(1, 3000), most=st.integers(1, 1024), busy=st.sampled_from([1, 16, 64, 4096])
)
def test_the_best_batch_fits_and_keeps_the_device_busy(room: int, most: int, busy: int) -> None:
    """A device with room for some images whose speed grows up to ``busy`` images at once."""
    tried = []

    def seconds(images: int) -> float:
        tried.append(images)
        if images > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return max(images, busy) / busy * 1e-3

    size = best_batch(seconds, most=most)
    assert 1 <= size <= max(1, min(room, most))
    if busy <= min(room, most) // 2 and busy >= 8:
        assert size == busy
    elif min(room, most) >= 16 and busy == 4096:
        largest = max(one for one in tried if one <= room)
        assert size == (largest // 2 if max(tried) > room else largest)


def test_another_error_is_no_shortage() -> None:
    def seconds(images: int) -> float:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        best_batch(seconds)
    assert is_memory_shortage(MemoryError())
    assert find_batch_sizes({"a": FakeDetector("a")}, "cpu") == {}


class Small(FakeDetector):
    """A detector whose device takes ``room`` images at once."""

    room = 3

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().logits(batch)


def test_a_batch_that_does_not_fit_is_scored_in_parts() -> None:
    detector = Small("small")
    tensors = [torch.full((1, 3, 2, 2), 8 * n, dtype=torch.uint8) for n in range(11)]
    expected = [(8 * n - 128) / 32 for n in range(11)]
    assert score_batch(detector, tensors) == expected
    assert max(detector.batches) <= 3
    assert sum(detector.batches) == 11
    detector.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        score_batch(detector, tensors)
