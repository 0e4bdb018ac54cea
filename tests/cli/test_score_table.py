"""What ``realbench score`` prints: a table whose numbers never break, findings in words."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from realbench.cli.score import _ranking, _verdicts
from realbench.cli.terminal import print_table
from realbench.report.wording import figure, ties
from realbench.scoring.summary import summarize

LONG = "black-forest-labs/flux.1-krea-dev-of-last-summer"
NAMES = ("semantic-lite", "trace-lite")


def summary_of(centers: dict[str, float], *, reference: str | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows = []
    for folder, center in centers.items():
        for n in range(30):
            values = np.clip(center + rng.uniform(-0.1, 0.1, 2), 0, 1)
            broken = n == 7 and folder == LONG
            rows.append(
                {
                    "folder": folder,
                    "image": f"{n}.png",
                    "prompt_id": str(n),
                    "sha256": "",
                    "status": "unreadable" if broken else "ok",
                    "reason": "0 bytes" if broken else "",
                    "realism": values.mean(),
                    NAMES[0]: values[0],
                    NAMES[1]: values[1],
                    "disagreement": np.ptp(values),
                    "verdict": "",
                }
            )
    return summarize(
        pd.DataFrame(rows),
        folders=[(name, name) for name in centers if name != reference],
        reference=None if reference is None else (reference, reference),
        detectors=NAMES,
    )


def printed(summary: dict[str, Any], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_table(console, _ranking(summary), names=2)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return text.splitlines()


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_every_number_stands_whole_in_one_line(width: int) -> None:
    summary = summary_of({LONG: 0.3, "b": 0.3, "c": 0.7, "photos": 0.95}, reference="photos")
    lines = printed(summary, width)
    assert all(len(line) <= width for line in lines)
    words = {word for line in lines for word in line.split()}
    for entry in [*summary["folders"], summary["reference"]]:
        values = [entry["realism"], entry["escape_rate"], *entry["detectors"].values()]
        shown = [figure(value) for value in values]
        if entry["auc"]:
            shown.append(figure(entry["auc"]))
        for pieces in shown:
            assert set(pieces.split("\n")) <= words
    assert {"29", "30"} <= words
    assert {"1", "2–3"} <= words
    joined = "".join("".join(line.split()) for line in lines)
    assert "+1bad" in joined


def test_photographs_come_first_and_the_best_folder_next() -> None:
    summary = summary_of({"low": 0.1, "high": 0.9, "photos": 0.95}, reference="photos")
    text = "\n".join(printed(summary, 100))
    assert text.index("photos") < text.index("high") < text.index("low")


def test_findings_say_what_is_tied_and_what_differs() -> None:
    apart = ties(summary_of({"a": 0.2, "b": 0.8})["pairs"], "Holm-adjusted")
    assert apart == ["All differences are significant (Holm-adjusted p < 0.05)."]
    tied = ties(summary_of({"a": 0.5, "b": 0.5, "c": 0.9})["pairs"], "Holm-adjusted")
    assert tied == ["Statistically tied (1 of 3 pairs, Holm-adjusted p ≥ 0.05): a and b."]
    assert ties(summary_of({"a": 0.5})["pairs"], "Holm-adjusted") == []


def test_verdicts_have_a_table_that_fits_a_terminal() -> None:
    summary = summary_of({LONG: 0.3, "photos": 0.95}, reference="photos")
    share = {"estimate": 0.25, "low": 0.1, "high": 0.5, "n": 30, "n_groups": 30}
    called = dict.fromkeys(("photograph", "unsure", "generated"), share)
    summary["folders"][0]["verdicts"] = called
    spread = {"median": 0.02, "largest": 0.31, "of": "street", "n": 40, "n_sources": 9}
    summary["verdict"] = {"max_false_alarm": 0.05, "photographs_called_generated": spread}
    console = Console(file=io.StringIO(), width=80)
    print_table(console, _verdicts(summary))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("0.10–0.50") == 3
    assert "at worst 0.31, n = 40, of 9 sources" in " ".join(text.split())
