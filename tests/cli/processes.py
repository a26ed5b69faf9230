"""The command: in a process of its own, as a shell starts it, or called in this one, which takes no start."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from typer.testing import CliRunner

from dynpin.cli.app import app
from dynpin.cli.errors import run

__all__ = ["COMMAND", "called", "dynpin", "python"]

COMMAND = (sys.executable, "-m", "dynpin")
COLUMNS = {"COLUMNS": "100"}


def dynpin(
    *arguments: object,
    shell: str = "",
    stdin: bytes = b"",
    stdout: int = subprocess.PIPE,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end; no traceback is ever printed.

    Args:
        arguments: those of the command.
        shell: what a shell writes behind the command, such as ``">&-"``.
        stdin: what can be read there.
        stdout: a descriptor, or a pipe that is read to its end.
        environment: what is added to that of the tests.
        folder: where it runs.
    """
    command = [*COMMAND, *map(str, arguments)]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return _run(command, stdin, stdout, environment, folder)


def called(
    *arguments: object,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Call the command in this process. For what neither its start nor its streams decide; arguments as above."""
    words = [*map(str, arguments)]
    with (
        contextlib.chdir(folder or "."),
        CliRunner(env=COLUMNS).isolation(stdin, environment) as (stdout, stderr, _),
    ):
        code = run(lambda: app(words, prog_name="dynpin"))
        sys.stdout.flush()
        sys.stderr.flush()
        return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python code to its end; `sys.argv` is ``["dynpin", *arguments]``."""
    code = f"import sys; sys.argv[0] = 'dynpin'\n{code}"
    return _run([sys.executable, "-c", code, *arguments], b"", subprocess.PIPE, environment, None)


def _run(
    command: list[str], stdin: bytes, stdout: int, environment: Mapping[str, str] | None, folder: Path | None
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        command,
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **COLUMNS, **(environment or {})},
        cwd=folder,
        timeout=300,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done
