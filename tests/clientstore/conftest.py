"""The world of the clients' tests: names that resolve, a site, its attacker, a store. A module may have its own."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from dynpin.clientstore import PinStore
from dynpin.lab.network import loopback_names

from .sites import Site
from .world import HOST, World

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def honest() -> trustme.CA:
    """The site's authority."""
    return trustme.CA()


@pytest.fixture(scope="session")
def rogue() -> trustme.CA:
    """Another authority that clients trust as well."""
    return trustme.CA()


@pytest.fixture
def clock() -> list[float]:
    """The time that the store sees; a test moves it."""
    return [1_800_000_000.0]


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, clock: list[float], tmp_path: Path) -> Iterator[World]:
    """`site` sends the pins of its key and of a backup; nothing is pinned yet."""
    certificate, backup, stolen = honest.issue_cert(HOST), honest.issue_cert(HOST), rogue.issue_cert(HOST)
    with (
        loopback_names(),
        Site(certificate) as site,
        Site(stolen) as attacker,
        PinStore(tmp_path / "pins", clock=lambda: clock[0]) as store,
    ):
        made = World(honest, rogue, certificate, backup, stolen, site, attacker, store, tmp_path)
        site.headers = [("Public-Key-Pins", str(made.header))]
        yield made


@pytest.fixture(scope="session")
def niquests_python() -> Path:
    """The interpreter of an environment with niquests, made once a checkout; skipped where it cannot be made."""
    folder = ROOT / ".venvs" / f"niquests-{sys.version_info.major}.{sys.version_info.minor}"
    python, ready = folder / "bin" / "python", folder / "ready"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest-xdist has several processes
        if not ready.exists():
            venv.create(folder, with_pip=False, clear=True)
            needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
            install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "niquests>=3.15"]
            done = subprocess.run([*install, *needs], capture_output=True, text=True, check=False, timeout=300)
            if done.returncode != 0:
                pytest.skip(f"no environment for niquests can be made: {done.stderr.strip()[-300:]}")
            ready.touch()
    return python
