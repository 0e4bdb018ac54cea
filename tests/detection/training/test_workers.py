"""The worker processes of training, and what becomes of them when the command is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import os, time
from realbench.detection.training.workers import worker_pool

if __name__ == "__main__":
    with worker_pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, {busy})
        time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("busy", [0, 600])
def test_workers_end_with_a_killed_command(tmp_path: Path, busy: int) -> None:
    path = tmp_path / "command.py"
    path.write_text(SCRIPT.format(busy=busy))
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        worker = psutil.Process(int(command.stdout.readline()))
        command.kill()
    try:
        worker.wait(timeout=60)
    except psutil.TimeoutExpired:
        worker.kill()
        pytest.fail("the worker was left behind")
