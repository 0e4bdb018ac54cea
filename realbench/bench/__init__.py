"""Measures detectors: how well they find generated images, how robustly and how fast."""

from realbench.bench.run import BenchRun, bench

__all__ = ["BenchRun", "bench"]
