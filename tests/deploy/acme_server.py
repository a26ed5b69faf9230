"""Let's Encrypt's test server, pebble, on loopback, and the ACME clients that Debian has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.deploy.servers import program, reserved_port, running

__all__ = ["ACME", "Certbot", "Lego", "acme_server", "lacking"]

# As long as a busy machine may take.
_PATIENCE = 300


def lacking(*programs: str) -> str | None:
    """Which of the programs are not installed, in words; None if all are."""
    missing = [name for name in programs if program(name) is None]
    return f"{', '.join(missing)} is not installed: apt-get install {' '.join(missing)}" if missing else None


@dataclass(frozen=True)
class ACME:
    """A server that issues a certificate for any name, and the root that its own certificate is of."""

    directory: str
    roots: Path

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a client as cron does: with next to no environment."""
        clean = ["env", "-i", "PATH=/usr/bin:/bin", f"REQUESTS_CA_BUNDLE={self.roots}"]
        return subprocess.run(
            [*clean, f"LEGO_CA_CERTIFICATES={self.roots}", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
            cwd="/",
        )


@contextmanager
def acme_server(folder: Path) -> Generator[ACME]:
    folder.mkdir()
    authority = trustme.CA()
    own = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "roots.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    with reserved_port() as port, reserved_port() as management:
        config = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(folder / "certificate.pem"),
            "privateKey": str(folder / "key.pem"),
            "httpPort": 5002,  # nothing is asked there
            "tlsPort": 5001,
        }
        (folder / "config.json").write_text(json.dumps({"pebble": config}))
        validated = ["PEBBLE_VA_ALWAYS_VALID=1", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"]
        command = ["env", *validated, program("pebble") or "pebble", "-config", str(folder / "config.json")]
        with running(command, port, folder):
            yield ACME(f"https://localhost:{port}/dir", folder / "roots.pem")


class Certbot:
    """certbot with folders of its own."""

    def __init__(self, acme: ACME, folder: Path) -> None:
        self.acme, self.folder = acme, folder
        places = [f"--{name}-dir={folder / name}" for name in ("config", "work", "logs")]
        self.command = ["certbot", *places, "--non-interactive"]

    def issue(self, host: str) -> Path:
        """The lineage of a new certificate."""
        self._obtain("--domain", host)
        return self.folder / "config" / "live" / host

    def sign(self, request: Path) -> Path:
        """The chain of a certificate for this CSR."""
        chain = self.folder / "signed.pem"
        others = ("--cert-path", str(self.folder / "leaf.pem"), "--chain-path", str(self.folder / "issuers.pem"))
        self._obtain("--csr", str(request), "--fullchain-path", str(chain), *others)
        return chain

    def _obtain(self, *what: str) -> None:
        with reserved_port() as port:
            how = ("certonly", "--server", self.acme.directory, "--standalone", "--http-01-port", str(port))
            done = self.acme.run([*self.command, *how, "--agree-tos", "--register-unsafely-without-email", *what])
        assert done.returncode == 0, done.stderr

    def renew(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Renew all lineages, as the timer does, though none is due."""
        return self.acme.run([*self.command, "renew", "--force-renewal", "--no-random-sleep-on-renew", *options])


class Lego:
    """lego with a folder of its own."""

    def __init__(self, acme: ACME, folder: Path) -> None:
        self.acme, self.folder = acme, folder

    def run(self, host: str, *command: str) -> subprocess.CompletedProcess[str]:
        with reserved_port() as port:
            return self.acme.run(
                [
                    *("lego", "--path", str(self.folder), "--server", self.acme.directory, "--accept-tos"),
                    *("--email", "nobody@acme.test", "--domains", host, "--http", "--http.port", f"127.0.0.1:{port}"),
                    *command,
                ]
            )

    def issue(self, host: str) -> tuple[Path, Path]:
        """Chain and key of a new certificate."""
        done = self.run(host, "run")
        assert done.returncode == 0, done.stderr
        files = self.folder / "certificates"
        return files / f"{host}.crt", files / f"{host}.key"
