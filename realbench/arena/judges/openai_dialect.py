"""Which optional parts of a chat request an endpoint takes, learnt from what it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from realbench.arena.template import Template, Wording

# What servers call these parts when they refuse one.
_FORMAT_WORDS = re.compile(
    r"response.?format|json.?(schema|object|mode)|structured|schema|guided|grammar"
)
_SYSTEM_WORDS = re.compile(
    r"(system|developer).{0,20}(role|message|instruction|prompt)|role.{0,40}system"
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The optional parts of a request; each can be refused, and what is left is tried then.

    Attributes:
        formats: Kinds of ``response_format`` that are left to try, best first; with none left,
            the instruction alone asks for JSON.
        token_limits: Names left to try for the limit of output tokens.
        temperature: Whether a temperature is sent; some reasoning models take none.
        system_role: Whether there is a system message; else its text opens the user's.
    """

    formats: tuple[str, ...] = ("json_schema", "json_object")
    token_limits: tuple[str, ...] = ("max_tokens", "max_completion_tokens")
    temperature: bool = True
    system_role: bool = True

    @property
    def response_format(self) -> str:
        """The kind of structured output in use, or ``"none"``."""
        return self.formats[0] if self.formats else "none"

    def without_refused(self, refusal: str, *, proven: bool) -> Dialect | None:
        """Return the dialect to try after a refusal, or None where it names no part of this one.

        Args:
            refusal: The server's text, and the name of the parameter if it gave one.
            proven: Whether the endpoint has answered before. If not, a refusal that names nothing
                is taken for one of the response format, the part that is refused most often.
        """
        text = refusal.casefold()
        if self.formats and _FORMAT_WORDS.search(text):
            return replace(self, formats=self.formats[1:])
        if self.token_limits and self.token_limits[0] in text:
            return replace(self, token_limits=self.token_limits[1:])
        if self.temperature and "temperature" in text:
            return replace(self, temperature=False)
        if self.system_role and _SYSTEM_WORDS.search(text):
            return replace(self, system_role=False)
        if self.formats and not proven:
            return replace(self, formats=self.formats[1:])
        return None

    def arguments(
        self, template: Template, *, temperature: float, max_output_tokens: int
    ) -> dict[str, Any]:
        """Return the optional arguments of a chat completion."""
        found: dict[str, Any] = {}
        if self.response_format == "json_schema":
            schema = {"name": "judgment", "strict": True, "schema": template.answer_schema()}
            found["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.response_format == "json_object":
            found["response_format"] = {"type": "json_object"}
        if self.token_limits:
            found[self.token_limits[0]] = max_output_tokens
        if self.temperature:
            found["temperature"] = temperature
        return found

    def messages(self, wording: Wording, first: str, second: str) -> list[dict[str, Any]]:
        """Return the messages that show two pictures, given as data URLs, in this order."""
        opening = wording.before_first
        if not self.system_role:
            opening = f"{wording.system}\n\n{opening}"
        content = [
            {"type": "text", "text": opening},
            {"type": "image_url", "image_url": {"url": first}},
            {"type": "text", "text": wording.before_second},
            {"type": "image_url", "image_url": {"url": second}},
            {"type": "text", "text": wording.question},
        ]
        system = [{"role": "system", "content": wording.system}] if self.system_role else []
        return [*system, {"role": "user", "content": content}]
