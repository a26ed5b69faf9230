"""The deploy hooks of ACME clients, run by a shell with what each client puts into its environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynpin import Pin
from dynpin.deploy.acme import ACME_CLIENTS
from tests.deploy.commands import dynpin
from tests.deploy.servers import Site, make_site
from tests.deploy.test_rotation import HOST, NEW, header

ROOT = Path(__file__).parents[2]


def environment(client: str, renewed: Site, folder: Path) -> dict[str, str]:
    """What the client tells its hook, with its own names for the files."""
    lineage = folder / "live"
    lineage.mkdir(exist_ok=True)
    (lineage / "fullchain.pem").write_bytes(renewed.chain.read_bytes())
    (lineage / "privkey.pem").write_bytes(renewed.key.read_bytes())
    names = {
        "certbot": {"RENEWED_LINEAGE": str(lineage)},
        "lego": {"LEGO_CERT_PATH": str(renewed.chain), "LEGO_CERT_KEY_PATH": str(renewed.key)},
        "acme.sh": {"CERT_FULLCHAIN_PATH": str(renewed.chain), "CERT_KEY_PATH": str(renewed.key)},
    }
    return {**names[client], "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("client", ACME_CLIENTS)
def test_the_hook_installs_a_pinned_key_and_no_other(client: str, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    installed = folder / "tls"
    installed.mkdir(parents=True)
    pinned, foreign = make_site(folder / "pinned", HOST), make_site(folder / "foreign", HOST)
    history = folder / "history.json"
    started = ("--host", HOST, "--header", str(header(Pin.from_file(pinned.chain), NEW)), "--chain", str(pinned.chain))
    assert dynpin("rotate", "record", *started, "--history", str(history)).exit_code == 0
    # The command as it is installed, under its own name.
    command = folder / "dynpin"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from dynpin.cli import main; main()" "$@"\n')
    command.chmod(0o755)
    hook = folder / "hook.sh"
    options = ("--history", str(history), "--install", str(installed), "--reload", "echo reloaded")
    hook.write_text(dynpin("guard", "--hook", client, *options).stdout)

    def run(renewed: Site) -> subprocess.CompletedProcess[str]:
        told = environment(client, renewed, folder)
        return subprocess.run(["sh", str(hook)], capture_output=True, text=True, check=False, timeout=300, env=told)

    stopped = run(foreign)
    assert (stopped.returncode, "reloaded" in stopped.stdout, "STOP" in stopped.stdout) == (1, False, True)
    assert list(installed.iterdir()) == []
    passed = run(pinned)
    assert (passed.returncode, passed.stdout.splitlines()[-1]) == (0, "reloaded"), passed.stderr
    assert (installed / "fullchain.pem").read_bytes() == pinned.chain.read_bytes()
    assert (installed / "privkey.pem").stat().st_mode & 0o777 == 0o600


def test_another_client_is_refused() -> None:
    result = dynpin("guard", "--hook", "dehydrated")
    assert (result.exit_code, "certbot, lego, acme.sh" in result.stderr) == (2, True)
    assert dynpin("guard").exit_code == 2
