"""A file that never ends, such as a device: each command that reads one says so, and ends."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

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
    "lines on stdin": "lint -",
}
STUDY = '[[policy]]\nmax_age = "30 days"\n[[population]]\nname = "seen"\nshare = 1\ntraces = "endless"\n'
CAUSES = ["it is larger than", "longer than a line", "does not end"]
INVENTORY = 'hosts = ["bank.test"]\nkeys = ["chain.pem"]\nbackups = ["backup.pub"]\n[policy]\nmax_age = 60\n'


# One process for all commands: to start one takes longer than any of them.
RUN_ALL = """
import contextlib, io, json, sys
from dynpin.cli.app import app
from dynpin.cli.errors import run
told = []
for typed in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            code = run(lambda: app(typed.split()))
        except MemoryError:
            code = None
    told.append((code, said.getvalue()))
print(json.dumps(told))
"""


def test_a_file_that_never_ends_is_told(tmp_path: Path) -> None:
    for name in ("endless", "endless.har", "endless.toml"):
        (tmp_path / name).symlink_to("/dev/zero")
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "site.toml").write_text(INVENTORY)
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(
            [sys.executable, "-c", RUN_ALL, *COMMANDS.values()],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OPENBLAS_NUM_THREADS": "1",
                "DYNPIN_STORE": str(tmp_path / "pins"),
            },
            stdin=endless,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
        )
    assert done.returncode == 0, done.stderr
    told = dict(zip(COMMANDS, json.loads(done.stdout), strict=True))
    assert {name: each for name, each in told.items() if not is_told(name, *each)} == {}


def is_told(name: str, code: int | None, said: str) -> bool:
    of, causes = ("stdin", ["is larger than"]) if "stdin" in name else ("endless", CAUSES)
    return code == 2 and of in said and any(cause in said for cause in causes)
