"""The command line: ``realbench``."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    from realbench.cli.main import app
    from realbench.cli.program import run

    run(app, "realbench")


__all__ = ["main"]
