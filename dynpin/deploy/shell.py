"""Run a shell line from the operator, such as the command that reloads a server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile

from dynpin.counts import plural

__all__ = ["run_line"]

# cron's PATH does not contain the administrator's folders, where nginx and caddy are.
_ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_line(line: str, *, seconds: float = 60.0) -> str | None:
    """Run a line in the shell. None if it succeeded, else the failure: the exit code and the output.

    It finds the programs of an administrator (/usr/sbin) whatever PATH is. After `seconds` it is ended, with all the
    processes that it started. An exception such as that of Ctrl-C ends it too.
    """
    # A file, not a pipe: a server that the line leaves running would keep a pipe open, and this function would wait.
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
            return f"it did not end within {seconds:g} {plural(seconds, 'second')}"
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
    """End a process with all processes that it has started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
