"""What every report shares: its template environment, its citation and how it is written."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from realbench.files import write_whole
from realbench.report import wording
from realbench.text import visible
from realbench.version import __version__

_PACKAGE = Path(__file__).parents[1]
_FILTERS = (
    wording.number,
    wording.signed,
    wording.percent,
    wording.p_value,
    wording.rank_range,
    wording.count,
    wording.listing,
    wording.pair_sentence,
)


def write_page(html: str, out: Path) -> Path:
    """Write a report to ``out`` (a file, or a folder that gets ``report.html``), whole or not.

    Returns:
        The path of the report.

    Raises:
        OSError: the file cannot be written.
    """
    path = out / "report.html" if out.is_dir() else out
    data = html.encode("utf-8", "backslashreplace")
    write_whole(path, lambda partial: partial.write_bytes(data))
    return path


def render_page(template: str, context: dict[str, object]) -> str:
    """Fill a template, named by its path in the package; whatever is not markup is escaped."""
    page = (
        environment().get_template(template).render(version=__version__, bibtex=bibtex(), **context)
    )
    return visible(page)


@cache
def environment() -> Environment:
    """Return the template environment: autoescaping, and a missing name is an error."""
    found = Environment(
        loader=FileSystemLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    styles = _PACKAGE / "report" / "templates" / "report.css"
    found.globals["report_css"] = Markup(styles.read_text("utf-8"))
    for filter_ in _FILTERS:
        found.filters[filter_.__name__] = filter_
    found.globals["span"] = wording.span
    found.globals["percent_span"] = wording.percent_span
    found.globals["is_number"] = wording.is_number
    return found


def command_line(
    manifest: Mapping[str, Any], command: str, options: Iterable[tuple[str, object]]
) -> str:
    """Return a run's command line; for a run from Python, the command that does the same.

    Args:
        manifest: of the run, with ``argv``, and its ``folders`` among ``arguments``.
        command: such as ``"score"``.
        options: by the names of the arguments; those without a value are left out.
    """
    argv = [str(part) for part in manifest["argv"]]
    if argv and Path(argv[0]).name == "realbench":
        return shlex.join(["realbench", *argv[1:]])
    parts = ["realbench", command, *map(str, manifest["arguments"].get("folders") or [])]
    for name, value in options:
        if value not in (None, ""):
            parts += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(parts)


def bibtex() -> str:
    """Return the BibTeX entries that a report asks its readers to cite."""
    return (
        "@software{realbench,\n"
        "  title   = {RealBench: how photoreal are generated images?},\n"
        "  author  = {{The RealBench maintainers}},\n"
        f"  version = {{{__version__}}},\n"
        "  year    = {2026},\n"
        "  license = {Apache-2.0}\n"
        "}\n\n"
        "@article{ye2025realgen,\n"
        "  title   = {RealGen: Photorealistic Text-to-Image Generation\n"
        "             via Detector-Guided Rewards},\n"
        "  author  = {Ye, Junyan and Zhu, Leiqi and Guo, Yuncheng and Jiang, Dongzhi and\n"
        "             Huang, Zilong and Zhang, Yifan and Yan, Zhiyuan and Fu, Haohuan and\n"
        "             He, Conghui and Li, Weijia},\n"
        "  journal = {arXiv preprint arXiv:2512.00473},\n"
        "  year    = {2025}\n"
        "}\n"
    )
