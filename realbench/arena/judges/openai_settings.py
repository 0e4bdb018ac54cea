"""The settings of the ``openai:`` judge, checked, and the key from the environment."""

from __future__ import annotations

import base64
import os
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from realbench.arena.judges.judge import JudgeOptions
from realbench.arena.judges.pictures import DEFAULT_IMAGE_SIZE
from realbench.errors import UsageError
from realbench.text import printable

OPENAI_URL = "https://api.openai.com/v1"
URL_VARIABLE = "OPENAI_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"

# A secret this short would also be found in ordinary words.
_SHORTEST_SECRET = 4


class Settings(BaseModel):
    """The options of this judge with its defaults; the names are those of ``JudgeOptions``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    base_url: str
    api_key_env: str = KEY_VARIABLE
    image_size: int = Field(default=DEFAULT_IMAGE_SIZE, ge=16, le=8192)
    image_format: Literal["jpeg", "png"] = "jpeg"
    concurrency: int = Field(default=8, ge=1, le=1000)
    timeout: float = Field(default=120.0, gt=0, description="seconds")
    max_retries: int = Field(default=6, ge=0, le=100)
    answer_retries: int = Field(default=2, ge=0, le=100)
    backoff: float = Field(default=1.0, ge=0, description="seconds")
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_output_tokens: int = Field(default=4096, ge=1)
    price_in: float | None = Field(default=None, ge=0)
    price_out: float | None = Field(default=None, ge=0)
    max_cost: float | None = Field(default=None, gt=0)


def read_settings(model: str, options: JudgeOptions) -> Settings:
    """Check the options that concern this judge and fill in its defaults.

    Raises:
        UsageError: one is not valid; the message names it as the command line does.
    """
    if not model.strip():
        raise UsageError("--judge openai needs a model: give openai:MODEL")
    given = {
        name: value
        for name in Settings.model_fields
        if (value := getattr(options, name, None)) is not None
    }
    given |= {"model": model.strip(), "base_url": _base_url(options.base_url)}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{option} {first['input']}: {first['msg']}") from error


def _base_url(given: str | None) -> str:
    """Return the endpoint's address: the option, the environment's, or OpenAI's."""
    url = (given or os.environ.get(URL_VARIABLE) or OPENAI_URL).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            "--base-url is no http:// or https:// address: "
            "give one such as http://127.0.0.1:8000/v1"
        )
    return url


def read_key(variable: str | None, base_url: str) -> SecretStr | None:
    """Return the key of the environment; a server other than OpenAI's may need none.

    Raises:
        UsageError: there is none and one is needed, or it cannot be sent.
    """
    name = variable or KEY_VARIABLE
    key = os.environ.get(name, "").strip()
    if not key and (variable or base_url == OPENAI_URL):
        raise UsageError(
            f"the environment variable {printable(name)} holds no key: set it"
            + ("" if variable else ", or give the --base-url of a server that needs none")
        )
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            f"the key in {printable(name)} has characters that no key has: set it again"
        )
    return SecretStr(key) if key else None


class Redactor:
    """Takes the key, and what is secret in the base URL, out of texts."""

    def __init__(self, key: SecretStr | None, base_url: str) -> None:
        address = urlsplit(base_url)
        secrets = [key.get_secret_value() if key else "", unquote(address.password or "")]
        # A gateway's token may be there; "true" or an API's version beside it is none.
        secrets += [value for _, value in parse_qsl(address.query) if len(value) > 10]
        if address.password:  # as it is sent
            login = f"{unquote(address.username or '')}:{unquote(address.password)}"
            secrets.append(base64.b64encode(login.encode()).decode())
        forms = {form for secret in secrets for form in (secret, quote(secret, safe=""))}
        self._forms = [
            SecretStr(form)
            for form in sorted(forms, key=len, reverse=True)
            if len(form) >= _SHORTEST_SECRET
        ]

    def text(self, text: str) -> str:
        """Return ``text`` with ``[key]`` in place of each secret."""
        for form in self._forms:
            text = text.replace(form.get_secret_value(), "[key]")
        return text

    def line(self, text: str) -> str:
        """Return ``text`` without secrets as one printable line of at most 300 characters."""
        return printable(" ".join(self.text(text).split()))[:300]


def shown_url(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")
