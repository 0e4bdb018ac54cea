"""Seconds that distances take from cached features: python benchmarks/distances.py [PICTURES]

A folder of so many pictures (10,000 by default) against as many photographs, and these against as
many others, with all intervals; features are drawn at random, of the embedded network's width.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd

from realbench.distances.compare import DINO, compare

n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
rng = np.random.default_rng(0)
mixing = rng.normal(size=(768, 768)) * np.exp(-np.arange(768) / 150)
features = (rng.normal(size=(3 * n, 768)) @ mixing).astype(np.float32)
features[:n] += 0.3
names = [f"{number}.jpg" for number in range(3 * n)]
table = pd.DataFrame(
    {
        "folder": ["pictures"] * n + ["photographs"] * 2 * n,
        "image": names,
        "prompt_id": names,
        "status": "ok",
    }
)
start, used = time.perf_counter(), time.process_time()
record, _ = compare(table, "photographs", ["pictures"], {DINO: features}, [])
assert record is not None
print(
    f"{record['n']:,} against {record['n']:,}, twice: {time.perf_counter() - start:.1f} s, "
    f"{time.process_time() - used:.1f} s of processors"
)
