"""A training's report: ``report.html`` from the run's folder."""

from __future__ import annotations

from pathlib import Path

from realbench.errors import UsageError
from realbench.report.page import render_page, write_page
from realbench.text import printable
from realbench.train.records import TrainRun
from realbench.train.report import diffusion, prompt
from realbench.train.report.sections import shared_context

_TEMPLATES = {
    "diffusion": "report/templates/train_report.html",
    "prompt": "report/templates/prompt_report.html",
}


def write_report(run: str | Path) -> Path:
    """Write the report of a run, finished or not, into its folder, and return its path.

    Raises:
        UsageError: it is no run of ``realgen-train``, or has no log yet.
        RealBenchError: a file of the run is damaged.
        OSError: the report cannot be written.
    """
    return write_page(render_report(run), Path(run))


def render_report(folder: str | Path) -> str:
    """Return the report as HTML."""
    run = TrainRun.read(folder)
    if not run.log:
        raise UsageError(f"{printable(run.out)} holds a run without a log: nothing to report")
    own = diffusion.context(run) if run.manifest.kind == "diffusion" else prompt.context(run)
    return render_page(_TEMPLATES[run.manifest.kind], shared_context(run) | own)
