"""The real wget2, a foreign HPKP client: it notes what the middleware emits, and refuses when the key changes."""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from dynpin.lab.bank import Keys, bank_app, serve_asgi
from dynpin.lab.certificates import Authority
from dynpin.middleware import Policy

WGET2 = shutil.which("wget2")
HOST = "localhost"  # a name that every machine resolves to itself, so that no hosts file is needed


@pytest.mark.skipif(WGET2 is None, reason="wget2 is not installed (Debian: apt-get install wget2)")
def test_wget2_notes_the_pins_of_the_middleware_and_refuses_another_key(tmp_path: Path) -> None:
    authority = Authority("Honest CA")
    roots, pins = tmp_path / "roots.pem", tmp_path / "hpkp"
    roots.write_bytes(authority.pem)
    keys = Keys(tmp_path / "keys", authority, HOST)
    policy = Policy(keys=keys.chain, backups=[keys.backup], max_age=timedelta(days=1))

    def wget2(port: int) -> int:
        assert WGET2 is not None
        command = [WGET2, "--no-config", "--hpkp", f"--hpkp-file={pins}", f"--ca-certificate={roots}", "--no-hsts"]
        command += ["--tries=1", "--timeout=60", "--no-ocsp", "--no-tls-resume", "-O", str(tmp_path / "page")]
        done = subprocess.run(
            [*command, f"https://{HOST}:{port}/balance"], capture_output=True, timeout=300, check=False
        )
        return done.returncode

    with serve_asgi(bank_app(policy), keys) as server:
        assert wget2(server.port) == 0
        noted = pins.read_text()
        assert HOST in noted
        for pin in (keys.deployed, keys.offline):
            assert str(pin) in noted

        former = keys.offline
        keys.rotate()
        policy.refresh()
        assert server.context is not None
        keys.load(server.context)
        assert keys.deployed == former
        assert wget2(server.port) == 0  # the backup key
        assert str(keys.offline) in pins.read_text()

        keys.replace_all()  # a key that was never pinned, under the same CA
        policy.refresh()
        keys.load(server.context)
        assert wget2(server.port) == 5
