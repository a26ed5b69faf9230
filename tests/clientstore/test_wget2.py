"""The real wget2, a foreign HPKP client: it notes the middleware's pins, and refuses when the key changes."""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynpin.lab.certificates import Authority, KeyPair
from dynpin.lab.network import TLSServer
from dynpin.middleware import Policy, PublicKeyPinsWSGIMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

WGET2 = shutil.which("wget2")
HOST = "localhost"  # every machine resolves this name to itself, so no hosts file is needed


def page(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a balance"]


@pytest.mark.skipif(WGET2 is None, reason="wget2 is not installed: apt-get install wget2")
def test_wget2_notes_the_pins_of_the_middleware_and_refuses_another_key(tmp_path: Path) -> None:
    authority = Authority("Honest CA")
    roots, pins = tmp_path / "roots.pem", tmp_path / "hpkp"
    roots.write_bytes(authority.pem)
    deployed, backup, next_backup, unknown = (KeyPair(f"key {number}", HOST) for number in range(4))

    def wget2(port: int) -> int:
        assert WGET2 is not None
        command = [WGET2, "--no-config", "--hpkp", f"--hpkp-file={pins}", f"--ca-certificate={roots}", "--no-hsts"]
        command += ["--tries=1", "--timeout=60", "--no-ocsp", "--no-tls-resume", "-O", str(tmp_path / "page")]
        done = subprocess.run(
            [*command, f"https://{HOST}:{port}/balance"], capture_output=True, timeout=300, check=False
        )
        return done.returncode

    def serves(server: TLSServer, key: KeyPair, other: KeyPair) -> None:
        """Show a key, and pin it with another."""
        certificate = authority.issue(HOST, key)
        server.show(certificate)
        policy = Policy(certificate.pem, [other.public_pem], max_age=timedelta(days=1))
        server.app = PublicKeyPinsWSGIMiddleware(page, policy)

    with TLSServer(authority.issue(HOST, deployed)) as server:
        serves(server, deployed, backup)
        assert wget2(server.port) == 0
        noted = pins.read_text()
        assert HOST in noted
        for key in (deployed, backup):
            assert str(key.pin) in noted

        serves(server, backup, next_backup)
        assert wget2(server.port) == 0  # the backup key
        assert str(next_backup.pin) in pins.read_text()

        serves(server, unknown, deployed)  # a key that was never pinned, under the same CA
        assert wget2(server.port) == 5
