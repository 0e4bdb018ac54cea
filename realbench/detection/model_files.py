"""The files of a model of transformers: a folder, or those that the hub has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from realbench.errors import RealBenchError, UsageError
from realbench.files import files_sha256
from realbench.text import first_line, printable


@contextmanager
def hub_refusals(name: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's refusal of a repository, its terms or its revision into one line.

    Raises:
        RealBenchError: its terms were not accepted.
        UsageError: there is no such repository, or it has no such revision.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise RealBenchError(
            f"{name} is given only to those who accepted its terms on the hub; accept them there "
            "and run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{name} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"no repository {name} on the Hugging Face hub; check the name, or, if it is private, "
            "run: hf auth login"
        ) from error


# Everything but weights, and never a pickle; code is fetched by those alone who trust it.
_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]
_WEIGHTS = ["*.safetensors"]
_CODE = ["*.py"]
# "owner/name" or "name", as the hub has them.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


class ModelFiles:
    """A model's folder, fetched from the hub as far as it is needed.

    Args:
        name: A folder, or an id on the Hugging Face hub.
        revision: The hub's branch, tag or commit; its main branch if not given.
        with_code: Whether to fetch Python code that comes with the model.

    Attributes:
        is_local: Whether it is a folder here.

    Raises:
        UsageError: there is no such model, or it is a folder and has no revisions.
        RealBenchError: it cannot be fetched.
    """

    def __init__(self, name: str, revision: str | None = None, *, with_code: bool = False) -> None:
        self.name = name
        self.is_local = os.path.isdir(os.path.expanduser(name))
        if not self.is_local and not _HUB_ID.fullmatch(name):
            raise UsageError(
                f"no model folder {printable(name)!r}; give a folder or a hub id such as "
                "Qwen/Qwen2.5-VL-7B-Instruct"
            )
        if self.is_local and revision is not None:
            raise UsageError(f"{printable(name)} is a folder and has no revision {revision!r}")
        self._revision = revision
        self._patterns = [*_SMALL_FILES, *(_CODE if with_code else [])]
        self.folder = self._fetched(self._patterns)

    def fetch_weights(self) -> None:
        """Fetch the weights of a hub model, if they are not here.

        Raises:
            RealBenchError: they cannot be fetched, or there are none in safetensors.
        """
        self._fetched(_WEIGHTS)
        if not any(self.folder.glob("*.safetensors")):
            what = "has no safetensors weights (files that need unpickling are not loaded)"
            raise RealBenchError(f"{printable(self.name)} {what}; {self.remedy}")

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the model's files, or the hub's commit, which is one.

        The files of a folder are read for it, which takes seconds for a large model.
        """
        if not self.is_local:
            return self.folder.name
        patterns = [*self._patterns, *_WEIGHTS]
        files = sorted({path for pattern in patterns for path in self.folder.glob(pattern)})
        return files_sha256(files)

    @property
    def remedy(self) -> str:
        """What to do about missing files."""
        if self.is_local:
            return "save or download the model again"
        revision = f" --revision {self._revision}" if self._revision else ""
        return f"where there is a network, run: hf download {self.name}{revision}"

    def _fetched(self, patterns: Sequence[str]) -> Path:
        """Return the model's folder; of a hub model, the files of these patterns are fetched."""
        if self.is_local:
            return Path(self.name).expanduser()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            with hub_refusals(self.name, self._revision):
                folder = snapshot_download(
                    self.name, revision=self._revision, allow_patterns=list(patterns)
                )
            return Path(folder)
        except LocalEntryNotFoundError as error:
            raise RealBenchError(
                f"the model {self.name} is not on this machine, nor a folder here, and cannot be "
                f"fetched (no network, or HF_HUB_OFFLINE is set); {self.remedy}"
            ) from error
        except (HfHubHTTPError, OSError) as error:
            raise RealBenchError(f"cannot fetch {self.name}: {first_line(error)}") from error


def check_complete(info: Mapping[str, Any], name: str, remedy: str) -> None:
    """Refuse weights of which some are missing: transformers would make random numbers up.

    ``info`` is what loading with ``output_loading_info`` and ``ignore_mismatched_sizes`` told.

    Raises:
        RealBenchError: some are missing, or of another shape.
    """
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if wrong:
        raise RealBenchError(
            f"in the weights of {name}, {len(wrong)} tensors are missing or of another shape, such "
            f"as {wrong[0]}; {remedy}"
        )
