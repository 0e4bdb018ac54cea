"""Strangers' texts in Markdown and LaTeX: shown as they are, never obeyed."""

from __future__ import annotations

import re

from realbench.text import visible

_PLAIN_MARKDOWN = re.compile(r"[\w ,()'/;–−-]", re.UNICODE)
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after \\ a bracket would be its option
    "]": "{]}",
    "–": "--",
    "−": "$-$",
}


def markdown(text: str) -> str:
    """Return a text for Markdown: what could be syntax, or start a link, is a character reference.

    CommonMark takes character references for text, never for structure (section 2.5 of its
    specification); that holds inside table cells, too.
    """
    shown = _visible(text)
    # Addresses become links without any syntax, and so do mentions in an issue's comment.
    return "".join(
        one
        if one != "_" and (_PLAIN_MARKDOWN.match(one) or one == ".") and not _links(shown, n)
        else f"&#{ord(one)};"
        for n, one in enumerate(shown)
    )


def _links(text: str, position: int) -> bool:
    return text[position] == "." and text[max(0, position - 3) : position].lower() == "www"


def code(text: str) -> str:
    """Return a text as inline code in Markdown, inside which no mention or issue becomes a link."""
    return f"<code>{markdown(text)}</code>"


def latex(text: str) -> str:
    """Return a text for LaTeX: every special character is spelled by a command."""
    return "".join(_LATEX.get(one, one) for one in _visible(text))


def _visible(text: str) -> str:
    return re.sub(r"\s+", " ", visible(text))
