"""The settings of the ``openai:`` judge, checked, and the key from the environment."""

from __future__ import annotations

import base64
import os
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from realbench.arena.judges.judge import JudgeOptions
from realbench.arena.judges.pictures import DEFAULT_IMAGE_SIZE
from realbench.errors import UsageError
from realbench.http_client import check_confidential
from realbench.text import printable

OPENAI_HOST = "api.openai.com"
OPENAI_URL = f"https://{OPENAI_HOST}/v1"
URL_VARIABLE = "OPENAI_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"
CHAT_PATH = "/chat/completions"

# What OpenAI bills to; of no concern to any other server.
_ACCOUNT = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}

# A secret this short would also be found in ordinary words.
_SHORTEST_SECRET = 4


class Settings(BaseModel):
    """The options of this judge with its defaults; the names are those of ``JudgeOptions``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    base_url: str
    api_key_env: str | None = None
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
    base_url = _base_url(options.base_url)
    given |= {"model": model.strip(), "base_url": base_url}
    if is_openai(base_url):
        given.setdefault("api_key_env", KEY_VARIABLE)
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{option} {first['input']}: {first['msg']}") from error


def _base_url(given: str | None) -> str:
    """Return the endpoint's address: the option, the environment's, or OpenAI's.

    The address of the chat itself, which some servers show, is as good.
    """
    url = (given or os.environ.get(URL_VARIABLE) or OPENAI_URL).strip()
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not (valid and url.isascii() and url.isprintable()) or "\\" in url or " " in url:
        raise UsageError(
            "--base-url is no http:// or https:// address: "
            "give one such as http://127.0.0.1:8000/v1"
        )
    path = parts.path.rstrip("/").removesuffix(CHAT_PATH).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def is_openai(base_url: str) -> bool:
    """Whether an address is of OpenAI itself, to which alone its key belongs."""
    return urlsplit(base_url).hostname == OPENAI_HOST


def read_key(settings: Settings) -> SecretStr | None:
    """Return the key that belongs to the endpoint, from the environment; None where none does.

    ``OPENAI_API_KEY`` is OpenAI's; what another server gets is named by ``api_key_env``.

    Raises:
        UsageError: the key is missing, cannot be sent, or could be read on its way.
    """
    if urlsplit(settings.base_url).password:
        check_confidential(settings.base_url, "the password in --base-url")
    name = settings.api_key_env
    if name is None:
        return None
    key = _from_environment(name)
    if not key:
        own = name == KEY_VARIABLE and is_openai(settings.base_url)
        raise UsageError(
            f"the environment variable {printable(name)} holds no key: set it"
            + (", or give the --base-url of a server that needs none" if own else "")
        )
    check_confidential(settings.base_url, f"the key in {printable(name)}")
    return SecretStr(key)


def account_headers(base_url: str) -> dict[str, str]:
    """Return the headers that tell OpenAI which of an account's parts pays; empty elsewhere.

    Raises:
        UsageError: one cannot be sent.
    """
    if not is_openai(base_url):
        return {}
    found = {header: _from_environment(name) for header, name in _ACCOUNT.items()}
    return {header: value for header, value in found.items() if value}


def _from_environment(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not (value.isascii() and value.isprintable()):
        raise UsageError(
            f"what is in {printable(name)} has characters that no key has: set it again"
        )
    return value


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
