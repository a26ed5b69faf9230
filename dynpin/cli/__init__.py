"""The `dynpin` command: one module per group of verbs, imported when one of them is called."""

from __future__ import annotations

import signal
import sys

from dynpin._version import __version__
from dynpin.cli.streams import open_streams, unwritten

__all__ = ["main"]

# By Ctrl-C: 128 and the number of the signal, as shells count.
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
    except KeyboardInterrupt:  # while modules were imported, which takes the longest
        print("dynpin: stopped", file=sys.stderr)
        code = _STOPPED
    # While Python ends, its threads and what was registered with atexit, nobody would catch Ctrl-C any more.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def _run() -> int:
    # Here, so that Ctrl-C meanwhile is caught too, and `import dynpin.cli` stays cheap.
    from dynpin.cli.app import app  # noqa: PLC0415
    from dynpin.cli.errors import run  # noqa: PLC0415

    return run(app)
