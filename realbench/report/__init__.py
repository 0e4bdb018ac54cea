"""HTML reports: one self-contained file per run, readable offline, on paper and on a phone."""

from __future__ import annotations

from realbench.report.score_report import ScoreReportSource, render_score_report, write_score_report

__all__ = ["ScoreReportSource", "render_score_report", "write_score_report"]
