"""What the Hugging Face hub refuses, in one line for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from realbench.errors import RealBenchError, UsageError


@contextmanager
def hub_refusals(name: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's refusal of a repository's terms or revision into one line.

    Args:
        name: the repository's id.
        revision: what was asked for.

    Raises:
        RealBenchError: its terms were not accepted.
        UsageError: it has no such revision.
    """
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise RealBenchError(
            f"{name} is given only to those who accepted its terms on the hub; accept them there "
            "and run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{name} has no revision {revision!r}") from error
