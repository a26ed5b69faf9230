"""A line of the operator's for the shell, such as the one by which a server reads its files again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile

__all__ = ["run_line"]

# cron's PATH leads to no folder of a system's administrator, where nginx and caddy are.
_ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_line(line: str, *, seconds: float = 60.0) -> str | None:
    """Run a line for the shell. None if it went well, else what failed: the exit code, and what it said.

    It finds the programs of an administrator (/usr/sbin) whatever PATH is. After `seconds` it is ended, with all that
    it has started; so it is where an exception, such as that of Ctrl-C, ends the wait.
    """
    # A file and no pipe: a server that the line leaves running would keep a pipe open, and this waiting.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S602 - the operator's own line, as in cron
            line,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"it did not end within {seconds:g} seconds"
        except BaseException:
            _end(process)
            raise
        if not code:
            return None
        output.seek(0)
        said = output.read(4096).decode("utf-8", "replace").strip()
    return f"exit code {code}{f': {said}' if said else ''}"


def _environment() -> dict[str, str]:
    if os.name != "posix":
        return dict(os.environ)
    search = os.environ.get("PATH", "")
    return {**os.environ, "PATH": f"{search}:{_ADMIN_PATH}" if search else _ADMIN_PATH}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
