"""Prompt suites as files: JSONL, CSV, or a prompt a line."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal, get_args

from realbench.errors import UsageError
from realbench.prompt_records import Prompt, Suite
from realbench.text import cell

ExportFormat = Literal["jsonl", "csv", "txt"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)


def export_prompts(suite: Suite, format: ExportFormat = "jsonl", *, long: bool = False) -> str:
    """Return a suite as the text of a file.

    Args:
        suite: the suite, whose order is kept.
        format: ``"jsonl"`` is what ``--prompts`` takes; ``"csv"`` has a header and tags with
            blanks between; ``"txt"`` has a prompt a line and no ids.
        long: give each prompt in its long form, in place of the short one.

    Raises:
        UsageError: a prompt has no long form, or the format is unknown.
    """
    if format not in EXPORT_FORMATS:
        raise UsageError(f"no format {format!r}: choose among {', '.join(EXPORT_FORMATS)}")
    prompts = list(suite.prompts.values())
    if long:
        without = [one.id for one in prompts if one.prompt_long is None]
        if without:
            raise UsageError(
                f"{suite.name} has no long form of {without[0]!r} ({len(without)} of "
                f"{len(prompts)} prompts): export it without --long"
            )
    if format == "txt":
        texts = [one.prompt_long if long else one.prompt for one in prompts]
        return "".join(" ".join(str(text).split()) + "\n" for text in texts)
    records = [_record(one, long=long) for one in prompts]
    if format == "jsonl":
        return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    return _csv(records)


def _record(prompt: Prompt, *, long: bool) -> dict[str, Any]:
    """Return what a line of a suite's file holds; what a prompt does not have is left out."""
    record: dict[str, Any] = {"id": prompt.id}
    if prompt.category is not None:
        record["category"] = prompt.category
    if prompt.tags:
        record["tags"] = list(prompt.tags)
    record["prompt"] = prompt.prompt_long if long else prompt.prompt
    if prompt.prompt_long is not None and not long:
        record["prompt_long"] = prompt.prompt_long
    return record


def _csv(records: list[dict[str, Any]]) -> str:
    keys = [
        key
        for key in ("id", "category", "tags", "prompt", "prompt_long")
        if any(key in record for record in records)
    ]
    text = io.StringIO()
    # All is quoted: else a lone carriage return in a prompt would end its row.
    writer = csv.DictWriter(text, keys, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for record in records:
        tags = {"tags": " ".join(record.get("tags", []))} if "tags" in keys else {}
        writer.writerow({key: cell(text) for key, text in (record | tags).items()})
    return text.getvalue()
