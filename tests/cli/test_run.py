"""`dynpin run`: what it starts, how it becomes the program, and what it refuses since nothing would hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import COMMAND, dynpin

ENVIRONMENT_OUT = "through which pins are enforced; leave it out"
# A program in another language has no use for inject().
NO_PYTHON = "is not a Python program, so its connections cannot be checked against the pins; use the proxy"
SHELL = "is not Python: pins are checked only in the Pythons that it starts"
SAYS = "import sys; print('injection' in str(sys.modules.keys()), *sys.argv[1:])"


def run(folder: Path, *command: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return dynpin("run", "--store", folder / "store", "--", *command, environment=environment)


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o700)
    return path


def test_what_stands_behind_the_command_is_its_own(tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "store")]
    for dashes in ([], ["--"]):
        done = dynpin("run", *store, *dashes, sys.executable, "-c", SAYS, "--store", "--audit", "--", "-h")
        assert done.stdout == b"True --store --audit -- -h\n"
        new = b"" if dashes else f"dynpin: a new pin store: {tmp_path / 'store'}\n".encode()
        assert done.stderr == new  # a name that is mistyped is seen, and the second time it is there


def test_it_becomes_the_program(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getpid(), flush=True); sys.exit(int(sys.stdin.readline()))"
    arguments = [*COMMAND, "run", "--store", str(tmp_path / "store"), sys.executable, "-c", code]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.communicate(b"7\n")
    assert process.returncode == 7
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks the kernel of Linux")
def test_no_signal_is_left_ignored(tmp_path: Path) -> None:
    done = run(tmp_path, "sh", "-c", "grep SigIgn /proc/self/status")
    ignored = int(done.stdout.split()[1], 16)
    assert [number for number in (signal.SIGPIPE, signal.SIGXFSZ) if ignored & 1 << number - 1] == []


PYTHONS = {
    "script": f"#!{sys.executable}\n{SAYS}\n",
    "env": f"#!/usr/bin/env python3\n{SAYS}\n",
    "options": f"#!{sys.executable} -sP\n{SAYS}\n",
    "env-options": f"#!/usr/bin/env -S python3 -s -W error\n{SAYS}\n",
    # As pip writes it where the path of Python is long.
    "by-a-shell": f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n{SAYS}\n",
}


@pytest.mark.parametrize("kind", PYTHONS)
def test_scripts_are_known_by_their_first_line(tmp_path: Path, kind: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = run(tmp_path, script(tmp_path, "program", PYTHONS[kind]), "-E", PATH=path)
    assert (done.returncode, done.stdout) == (0, b"True -E\n")
    assert done.stderr == f"dynpin: a new pin store: {tmp_path / 'store'}\n".encode()


@pytest.mark.parametrize(
    "options",
    [["-I"], ["-E"], ["-S"], ["-sE"], ["-Ic", "pass"], ["-W", "error", "-uI"], ["-Xdev", "-S"], ["-X", "dev", "-bbE"]],
    ids=" ".join,
)
def test_a_python_that_shuts_the_environment_out_is_refused(tmp_path: Path, options: list[str]) -> None:
    done = run(tmp_path, sys.executable, *options, "-c", "print('started')")
    assert (done.returncode, done.stdout) == (2, b"")
    assert ENVIRONMENT_OUT in done.stderr.decode()
    by_its_line = script(tmp_path, "program", f"#!{sys.executable} {' '.join(options)}\n")
    assert ENVIRONMENT_OUT in run(tmp_path, by_its_line).stderr.decode()


@pytest.mark.parametrize(
    "options",
    [["-c", SAYS], ["-Wignore", "-c", SAYS], ["-W", "ignore", "-uc", SAYS], ["-Xdev", "--", "program"], ["program"]],
    ids=lambda options: options[0],
)
def test_options_of_the_program_are_no_options_of_python(tmp_path: Path, options: list[str]) -> None:
    script(tmp_path, "program", SAYS)
    done = dynpin("run", "--store", "store", sys.executable, *options, "-I", "-E", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"True -I -E\n")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("program", "\x7fELF", NO_PYTHON),
        ("program", "", NO_PYTHON),
        ("program", "#!/usr/bin/perl\n", NO_PYTHON),
        ("program", "#!/usr/bin/env -i python3\n", NO_PYTHON),
        ("program", "#!/nowhere/python3\n", "is to be run by /nowhere/python3, which is not there"),
        # It is called so, and does not listen: that is seen, whatever it is.
        ("python", '#!/bin/sh\nPYTHONPATH= exec python3 "$@"\n', "does not run what enforces pins"),
        ("python3.9", "#!/bin/sh\nexit 5\n", "does not run what enforces pins"),
    ],
)
def test_what_cannot_be_covered_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    done = run(tmp_path, script(tmp_path, name, text))
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()


def test_a_command_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SAYS)
    assert (
        b"is not a program that can be started; check its name, and PATH\n" in run(tmp_path, "no-such-command").stderr
    )
    assert b"try: dynpin run -- python" in run(tmp_path, tmp_path / "app.py").stderr


def test_a_shell_is_told_to_cover_its_pythons_alone(tmp_path: Path) -> None:
    for command in (
        ["sh", "-c", f'"{sys.executable}" -c "{SAYS}"'],
        [script(tmp_path, "program", "#!/bin/sh\necho True\n")],
    ):
        done = run(tmp_path, *command)
        assert (done.returncode, done.stdout) == (0, b"True\n")
        assert SHELL in done.stderr.decode()


def test_a_store_that_cannot_be_opened_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"no database" * 100)
    done = run(tmp_path, sys.executable, "-c", "print('started')")
    assert (done.returncode, done.stdout) == (2, b"")
