"""A file that never ends, such as a device: each command that reads one says so, and ends."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.environments import ROOT

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no /dev/zero here")  # noqa: PTH110

COMMANDS = {
    "a study": "simulate endless",
    "traces": "simulate study.toml",
    "a scan": "lint --scan endless",
    "circumstances": "lint --context endless max-age=60",
    "a HAR file": "lint endless.har",
    "a chain": "lint --chain endless max-age=60",
    "a key": "pin endless",
    "a new chain": "guard endless --inventory site.toml",
    "a signing key": "export wultra --signing-key endless --inventory site.toml",
    "an agent": "lab score --agent endless.toml",
    "an inventory": "export nginx --inventory endless",
    "settings": "collect config --config endless",
    "pins": "hosts import endless",
}
STUDY = '[[policy]]\nmax_age = "30 days"\n[[population]]\nname = "seen"\nshare = 1\ntraces = "endless"\n'
INVENTORY = 'hosts = ["bank.test"]\nkeys = ["chain.pem"]\nbackups = ["backup.pub"]\n[policy]\nmax_age = 60\n'


@pytest.mark.parametrize("typed", COMMANDS.values(), ids=list(COMMANDS))
def test_a_file_that_never_ends_is_told(typed: str, tmp_path: Path) -> None:
    for name in ("endless", "endless.har", "endless.toml"):
        (tmp_path / name).symlink_to("/dev/zero")
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "site.toml").write_text(INVENTORY)
    done = with_little_memory(typed, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "endless" in done.stderr
    assert any(cause in done.stderr for cause in ("it is larger than", "longer than a line", "does not end"))


def test_lines_on_stdin_that_never_end_are_told(tmp_path: Path) -> None:
    with open("/dev/zero", "rb") as endless:  # noqa: PTH123 - for its descriptor
        done = with_little_memory("lint -", tmp_path, stdin=endless)
    assert done.returncode == 2, done.stderr
    assert "stdin is larger than" in done.stderr


def with_little_memory(typed: str, folder: Path, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which may not have more than 8 GiB."""
    return subprocess.run(
        [sys.executable, "-m", "dynpin", *typed.split()],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENBLAS_NUM_THREADS": "1",
            "DYNPIN_STORE": str(folder / "pins"),
        },
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
    )
