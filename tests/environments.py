"""What surrounds the tests: their process, and environments for what cannot stand beside the rest, in `.venvs`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "ROOT",
    "dependencies",
    "descriptors_of",
    "green_environment",
    "made_once",
    "niquests_environment",
    "proxy_environment",
    "told_by",
]

ROOT = Path(__file__).parents[1]


def _environment_with(name: str, *asked: str) -> Path:
    """The `bin` of an environment into which pip has installed what was asked for; skips where it cannot be made.

    Args:
        name: what the environment is called; there is one for each version of Python.
        asked: the arguments of ``pip install``. Where they have changed, the environment is made again.
    """
    with _alone_at(name) as folder:
        ready = folder / "ready"
        if not ready.exists() or ready.read_text().splitlines() != list(asked):
            venv.create(folder, with_pip=False, clear=True)
            install = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
            done = subprocess.run(
                [*install, *asked], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT
            )
            if done.returncode != 0:
                pytest.skip(f"no environment for {name} can be made: {done.stderr.strip()[-300:]}")
            ready.write_text("".join(f"{one}\n" for one in asked))
    return folder / "bin"


@contextlib.contextmanager
def _alone_at(name: str) -> Iterator[Path]:
    """The folder of an environment, in which no other process of pytest-xdist writes meanwhile."""
    folder = ROOT / ".venvs" / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    folder.parent.mkdir(exist_ok=True)
    with _locked(folder):
        yield folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(
    request: pytest.FixtureRequest, factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """A folder that `make` fills: once a run, however many processes pytest-xdist has."""
    base = factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / name
    with _locked(folder):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


def told_by(python: str | Path, module: str, *arguments: str | Path) -> Any:
    """The JSON that a module of the tests prints in a process of its own."""
    done = subprocess.run(
        [python, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONFAULTHANDLER": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def dependencies(extra: str | None = None) -> list[str]:
    """What pyproject.toml says that dynpin, or one of its extras, needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: list[str] = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return found


def niquests_environment() -> Path:
    """The `bin` of an environment with niquests, which puts a fork in place of urllib3."""
    return _environment_with("niquests", "niquests>=3.15", *dependencies())


def green_environment() -> Path:
    """The `bin` of an environment with gevent and eventlet: what patches sockets patches eventlet's wherever it is."""
    return _environment_with("green", "gevent>=24", "eventlet>=0.36", *dependencies())


def proxy_environment() -> Path:
    """The `bin` of an environment with mitmproxy, and with the command `dynpin` of this checkout."""
    bin_folder = _environment_with("proxy", *dependencies(), *dependencies("proxy"))
    # As an editable installation leaves it, without a build.
    with _alone_at("proxy"):
        (packages,) = (bin_folder.parent / "lib").glob("python*/site-packages")
        command = bin_folder / "dynpin"
        for file, text in (
            (packages / "dynpin-checkout.pth", f"{ROOT}\n"),
            (command, f"#!{bin_folder / 'python'}\nfrom dynpin.cli import main\nmain()\n"),
        ):
            if not file.exists() or file.read_text() != text:
                file.write_text(text)
                file.chmod(0o755)
    return bin_folder


def descriptors_of(path: Path) -> int:
    """How many descriptors this process has of a file and of what stands beside it under a longer name.

    Those of other files come and go: other threads open them, and the garbage of other tests is freed.
    """
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += str(descriptor.readlink()).startswith(str(path))
    return found


if __name__ == "__main__":
    # Ahead of the tests: python -m tests.environments, or with the names of some.
    KNOWN = {"niquests": niquests_environment, "green": green_environment, "proxy": proxy_environment}
    for chosen in sys.argv[1:] or KNOWN:
        print(KNOWN[chosen]())
