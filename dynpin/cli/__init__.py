"""The `dynpin` command: one module per group of verbs."""

from __future__ import annotations

import sys

from dynpin.cli.errors import run

__all__ = ["main"]


def main() -> None:
    """Run the command; exit codes: 0 fine, 1 a finding, 2 wrong usage or unreadable input, 130 Ctrl-C."""
    sys.exit(run(_command))


def _command() -> None:
    from dynpin.cli.app import app  # noqa: PLC0415 - `import dynpin.cli` alone must stay cheap

    app()
