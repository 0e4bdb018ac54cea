"""HTML reports: one self-contained file per run, readable offline, on paper and on a phone."""

from __future__ import annotations

from realbench.report.arena_report import ArenaReportSource, render_arena_report, write_arena_report
from realbench.report.score_report import ScoreReportSource, render_score_report, write_score_report

__all__ = [
    "ArenaReportSource",
    "ScoreReportSource",
    "render_arena_report",
    "render_score_report",
    "write_arena_report",
    "write_score_report",
]
