"""The `dynpin` command: one module per group of verbs, imported when one of them is called."""

from __future__ import annotations

import signal
import sys

from dynpin._version import __version__
from dynpin.cli.streams import open_streams, unwritten

__all__ = ["main"]

# Ctrl-C: 128 plus the number of the signal, as in shells.
_STOPPED = 130


def main() -> None:
    """Run the command; exit codes: 0 fine, 1 a finding, 2 wrong usage or unreadable input, 130 Ctrl-C."""
    try:
        open_streams()
        if sys.argv[1:] == ["--version"]:
            print(f"dynpin {__version__}")
            code = 0
        else:
            code = _run()
        lost = unwritten()
        if lost is not None:
            print(f"dynpin: the results cannot be written: {lost.strerror}", file=sys.stderr)
            code = 2
    except KeyboardInterrupt:  # during the imports, which take the longest
        print("dynpin: stopped", file=sys.stderr)
        code = _STOPPED
    # Ignore Ctrl-C while Python ends its threads and atexit functions, since nothing would catch it there.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def _run() -> int:
    # Import here, so that Ctrl-C is caught, and `import dynpin.cli` is fast.
    from dynpin.cli.app import app  # noqa: PLC0415
    from dynpin.cli.errors import run  # noqa: PLC0415

    return run(app)
