"""The command, run as a person runs it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Sequence

from typer.testing import CliRunner, Result

from dynpin.cli.app import app

__all__ = ["app", "at_a_terminal", "dynpin"]

# Seconds. Generous, since a busy machine is not a fault of the command's.
_PATIENCE = 300
# Not pty.fork, which may not be called where there are threads. Ctrl-C needs a controlling terminal.
_AT_ITS_TERMINAL = """
import fcntl, os, runpy, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("dynpin", run_name="__main__", alter_sys=True)
"""


def dynpin(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin, env={"COLUMNS": "200", "NO_COLOR": "1"})


def at_a_terminal(arguments: Sequence[str], answers: Sequence[str]) -> tuple[str, int]:
    """Run the command at a terminal of its own, give an answer to each question, and tell what was shown, and the code.

    A question ends in a colon. An answer of one control character is typed alone, others with Enter.
    """
    terminal, other_end = pty.openpty()
    command = [sys.executable, "-c", _AT_ITS_TERMINAL, *arguments]
    started = subprocess.Popen(command, stdin=other_end, stdout=other_end, stderr=other_end)
    os.close(other_end)
    shown, read, left = b"", 0, list(answers)
    with contextlib.suppress(OSError):  # EIO: the command has ended
        while select.select([terminal], [], [], _PATIENCE)[0]:
            piece = os.read(terminal, 4096)
            if not piece:
                break
            shown += piece
            if left and re.search(rb": $", shown[read:]):
                answer = left.pop(0)
                read = len(shown)
                os.write(terminal, answer.encode() if len(answer) == 1 else f"{answer}\n".encode())
    os.close(terminal)
    return shown.decode(), started.wait(_PATIENCE)
