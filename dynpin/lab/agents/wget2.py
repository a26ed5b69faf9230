"""wget2, the real program: the only foreign HPKP client that is still maintained.

Each visit is a process of its own. It runs in a mount namespace with an /etc/hosts that maps the lab's names to
loopback, so it does not need root. Its port is that of the server that answers the name now: pins belong to names, not
to ports. wget2's clock cannot be set. So the agent shifts the times in the pin file before each visit, and back after
it, by the difference between the lab's clock and the machine's.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Sequence

from dynpin.clientstore.store.formats import read_wget2, write_wget2
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.lab.agents import namespace
from dynpin.lab.agents.agent import Machine, Sent, Visit
from dynpin.lab.agents.browser import nearest
from dynpin.noting import Noting, Outcome
from dynpin.pins import Pin

__all__ = ["Wget2Agent", "missing"]

_TIMEOUT = 300.0
_OPTIONS = (
    *("--no-config", "--no-hsts", "--no-ocsp", "--server-response", "--output-document=page"),
    *("--tries=1", "--timeout=60", "--max-redirect=0", "--ca-directory=", "--ca-certificate=roots.pem"),
)
# Its output in the C locale.
_STATUS = re.compile(r"^\s*HTTP/[0-9.]+ ([0-9]{3})", re.MULTILINE)
_HEADER = re.compile(r"^\s*public-key-pins:", re.MULTILINE | re.IGNORECASE)
_ERROR = re.compile(r"^ERROR: (.*)$", re.MULTILINE)
_MISMATCH = "Pubkey pinning mismatch"
_RESUMED = "Handshake completed (resumed session)"
_FAILURES = {4: "the network failed", 5: "TLS failed"}
# `HOST SUBDOMAINS CREATED MAX-AGE`
_HOST_LINE = re.compile(r"^([^#*\s]\S* [01] )([0-9]+)( [0-9]+)$", re.MULTILINE)


def missing() -> str | None:
    """Why wget2 cannot run here, in words; None if it can."""
    if shutil.which("wget2") is None:
        return "wget2 is not installed: apt-get install wget2"
    return namespace.missing()


class Wget2Agent:
    """wget2 with a pin file in the machine's folder. While wget2 does not run, the times in the file are the lab's.

    Args:
        machine: the machine that it is installed on.

    Attributes:
        sessions: its options for TLS sessions; by default it resumes none.
        resumed: whether the last visit resumed a session.
    """

    sessions: tuple[str, ...] = ("--no-tls-resume",)
    resumed = False

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._pins = machine.folder / "hpkp"
        self._pins.touch()

    def visit(self, host: str, *, secret: str, path: str = "/") -> Visit:
        """As :meth:`UserAgent.visit`."""
        port = self.machine.network.get(host)
        if port is None:
            return Visit(host=host, failure=f"no {host} in this network")
        known = self.known_host(host) if self.machine.pins else None
        before = self._own(host)
        done = self._run([f"https://{host}:{port}{path}"], secret)
        said = done.stdout + done.stderr
        self.resumed = _RESUMED in said
        if _MISMATCH in said:
            return Visit(host=host, refusal=f"{_MISMATCH} (wget2 exited with 5)", known_host=known, section="2.6")
        status = _STATUS.search(said)
        if status is None:
            why = "; ".join(line.strip() for line in _ERROR.findall(said)) or _FAILURES.get(
                done.returncode, "it failed"
            )
            return Visit(host=host, failure=f"{why} (wget2 exited with {done.returncode})", known_host=known)
        noting = self._noting(host, before) if self.machine.pins and _HEADER.search(said) else None
        return Visit(
            host=host,
            status=int(status[1]),
            known_host=known,
            noting=noting,
            section=noting.section if noting else "",
        )

    def load(self, hosts: Sequence[str]) -> None:
        """As :meth:`UserAgent.load`, in one process."""
        self._run([f"https://{host}:{self.machine.network[host]}/" for host in hosts], "")

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """As :meth:`UserAgent.known_host`."""
        return nearest(self.known_hosts(), canonical_host(host), self.machine.clock())

    def known_hosts(self) -> list[KnownPinnedHost]:
        """As :meth:`UserAgent.known_hosts`."""
        now = self.machine.clock()
        entries = read_wget2(self._pins.read_text().splitlines(), now=now)
        return sorted((entry for entry in entries if not entry.is_expired(now)), key=lambda entry: entry.host)

    def preload(self, host: str, pins: Sequence[Pin], *, expires_at: float | None = None) -> None:
        """Write the pins into the pin file. A header changes them like any others."""
        name = canonical_host(host)
        entry = KnownPinnedHost(name, tuple(pins), False, None, self.machine.clock(), expires_at)
        kept = [each for each in self.known_hosts() if each.host != name]
        self._pins.write_text("".join(write_wget2([*kept, entry])))

    def forget(self, host: str) -> bool:
        """Remove the host from the pin file, as a user can with an editor."""
        entries, name = self.known_hosts(), canonical_host(host)
        kept = [entry for entry in entries if entry.host != name]
        self._pins.write_text("".join(write_wget2(kept)))
        return len(kept) < len(entries)

    def report_at_once(self) -> list[Sent]:
        """Do nothing: wget2 does not read report-uri."""
        return []

    def send_reports(self) -> list[Sent]:
        """Do nothing: wget2 does not read report-uri."""
        return []

    def restart(self, *, crashed: bool = False) -> None:
        """Do nothing: wget2 ends after each visit, after it has written its file."""

    def close(self) -> None:
        """Do nothing: wget2 has ended."""

    def _own(self, host: str) -> KnownPinnedHost | None:
        return next((entry for entry in self.known_hosts() if entry.host == canonical_host(host)), None)

    def _run(self, urls: Sequence[str], secret: str) -> subprocess.CompletedProcess[str]:
        folder, names = self.machine.folder, ("localhost", *sorted(self.machine.network))
        roots = (*self.machine.public_roots, *self.machine.private_roots)
        (folder / "roots.pem").write_text("".join(ssl.DER_cert_to_PEM_cert(root) for root in roots))
        (folder / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in names))
        pinning = "--hpkp" if self.machine.pins else "--no-hpkp"
        command = namespace.in_namespace(str(folder / "hosts"), ["wget2", *_OPTIONS, *self.sessions])
        # No proxy and no settings of the person who runs the lab, and the language of the messages above.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C"}
        ahead = round(time.time() - self.machine.clock())
        self._move(ahead)
        try:
            return subprocess.run(  # noqa: S603 - a URL and a secret of the lab's own making
                [*command, pinning, "--hpkp-file=hpkp", f"--header=Authorization: {secret}", *urls],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT + len(urls) / 4,
                check=False,
            )
        finally:
            # The lab's clock stood still, however long wget2 took on a busy machine.
            self._move(-ahead, latest=int(self.machine.clock()))

    def _move(self, seconds: int, latest: int | None = None) -> None:
        """Shift the times in the pin file, up to the latest time."""

        def moved(line: re.Match[str]) -> str:
            noted_at = int(line[2]) + seconds
            return f"{line[1]}{noted_at if latest is None else min(noted_at, latest)}{line[3]}"

        self._pins.write_text(_HOST_LINE.sub(moved, self._pins.read_text()))

    def _noting(self, host: str, before: KnownPinnedHost | None) -> Noting:
        """The result of the header, from the pin file: wget2 does not report it."""
        after = self._own(host)
        outcome: Outcome
        if after is None:
            outcome, did = ("ignored", "keeps no entry") if before is None else ("removed", "has removed the entry")
        else:
            outcome, did = (
                ("noted", "has written an entry") if before is None else ("updated", "has rewritten the entry")
            )
        return Noting(outcome, f"wget2 {did} for {host} in its pin file", "2.5", after)
