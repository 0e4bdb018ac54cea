"""Reads the form (multipart/form-data) in which images and prompts are sent."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from realbench.serve.reward_limits import Limits, Refusal

IMAGES, PROMPTS = "images", "prompts"
"""The names of the form's fields, each given as often as needed."""

_HEADER_BYTES = 2048


@dataclass
class SentForm:
    """What a form held, in its order.

    Attributes:
        images: The files.
        prompts: The texts.
    """

    images: list[bytes] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


async def read_form(content_type: str, body: AsyncIterable[bytes], limits: Limits) -> SentForm:
    """Read a form while it arrives; it is kept in memory and never on a disk.

    Args:
        content_type: The request's, with the boundary.
        body: The request's, in pieces.
        limits: How many parts there may be, and how long a prompt.

    Raises:
        Refusal: it is no such form, or exceeds a limit.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Refusal(415, "send multipart/form-data with images and prompts", "form")
    reader = _Reader(limits)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        async for piece in body:
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, "the form is damaged", "form") from error
    if not reader.ended:
        raise Refusal(400, "the form has no end: it was cut off", "form")
    return reader.form


class _Reader:
    """Takes what the parser finds, and stops it at the first thing that is not wanted."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.form = SentForm()
        self.ended = False
        self._header_bytes = 0
        self._name = self._value = b""
        self._field = ""
        self._content = bytearray()

    def callbacks(self) -> dict[str, object]:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value")
        return {
            f"on_{name}": getattr(self, f"_{name}")
            for name in (*names, "header_end", "headers_finished", "end")
        }

    def _part_begin(self) -> None:
        self._header_bytes = 0
        self._field = ""
        self._content = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += self._header(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._header(data[start:end])

    def _header(self, piece: bytes) -> bytes:
        self._header_bytes += len(piece)
        if self._header_bytes > _HEADER_BYTES:
            raise Refusal(400, "the form is damaged: a part's head is too long", "form")
        return piece

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        limits = self._limits
        if self._field not in (IMAGES, PROMPTS):
            raise Refusal(
                400, f"the form has {IMAGES} and {PROMPTS}, no {self._field[:40]!r}", "form"
            )
        if len(getattr(self.form, self._field)) >= limits.max_images:
            raise Refusal(
                413, f"more than {limits.max_images} {self._field} in one request", "too-large"
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += memoryview(data)[start:end]
        # A character of UTF-8 has 4 bytes at most.
        if self._field == PROMPTS and len(self._content) > 4 * self._limits.max_prompt:
            raise self._long_prompt()

    def _part_end(self) -> None:
        if self._field == IMAGES:
            self.form.images.append(bytes(self._content))
        else:
            try:
                text = self._content.decode()
            except UnicodeDecodeError:
                raise Refusal(
                    400, f"prompt {len(self.form.prompts)} is not UTF-8", "form"
                ) from None
            if len(text) > self._limits.max_prompt:
                raise self._long_prompt()
            self.form.prompts.append(text)
        self._content = bytearray()

    def _long_prompt(self) -> Refusal:
        return Refusal(
            413, f"a prompt of more than {self._limits.max_prompt:,} characters", "too-large"
        )

    def _end(self) -> None:
        self.ended = True
