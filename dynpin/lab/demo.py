"""The story that certificate pinning exists for, told on real TLS sockets: `dynpin demo`.

A bank and its shop pin their keys; a client remembers; a hostile hotspot with a certificate of a trusted CA gets
nothing; the violation is reported; keys are rotated well, and then badly. The clock of the client is injected, so that
nobody waits for an expiry.
"""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx

from dynpin.clientstore import PinStore, ReportQueue, pin_violation
from dynpin.clientstore.httpx import PinnedClient
from dynpin.clientstore.requests import PinnedSession
from dynpin.errors import PinValidationError
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.bank import Keys, bank_app, serve_asgi, serve_wsgi, shop_app
from dynpin.lab.certificates import Authority, KeyPair
from dynpin.lab.network import TLSServer, loopback_names
from dynpin.lab.story import Step
from dynpin.middleware import Policy
from dynpin.middleware.collector import collector
from dynpin.middleware.policy import Mode
from dynpin.pins import Pin
from dynpin.report import rfc3339

__all__ = ["Demo", "demo"]

BANK, SHOP, REPORTS = "bank.test", "shop.test", "reports.test"
# Seconds, on a busy machine.
_JUDGED_WITHIN = 60.0
BALANCE, BASKET = f"https://{BANK}/balance", f"https://{SHOP}/basket"
SECRET = "Bearer the-customers-own-token"  # noqa: S105 - part of the story
MAX_AGE = timedelta(days=7)


@contextlib.contextmanager
def demo() -> Generator[Demo]:
    """Set the stage: authorities, keys, servers, network, and a client with an empty store."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dynpin-demo-")))
        yield Demo(folder, stack)


class Demo:
    """The stage and its actors; :meth:`steps` plays the story."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.honest, self.careless = Authority("Honest CA"), Authority("Careless CA")
        self.roots = folder / "trusted-roots.pem"
        self.roots.write_bytes(self.honest.pem + self.careless.pem)
        self.bank_keys = Keys(folder / "bank", self.honest, BANK)
        self.shop_keys = Keys(folder / "shop", self.honest, SHOP)
        self.report_uri = f"http://{REPORTS}/r/bank/enforce"
        self.bank_policy = self._policy(self.bank_keys, self.report_uri)
        self.shop_policy = self._policy(self.shop_keys)

        self.bank = stack.enter_context(serve_asgi(bank_app(self.bank_policy), self.bank_keys))
        self.shop = stack.enter_context(serve_wsgi(shop_app(self.shop_policy), self.shop_keys))
        self.collector = stack.enter_context(
            serve_asgi(collector(folder / "reports.sqlite", tokens=["bank"], open_access=True), None)
        )
        self.attackers_key = KeyPair("the attacker's key", "the attacker")
        self.hotspot = stack.enter_context(TLSServer(self.careless.issue(BANK, self.attackers_key)))

        self.routes = {BANK: self.bank.port, SHOP: self.shop.port, REPORTS: self.collector.port}
        stack.enter_context(loopback_names(self.routes))
        self.store_path = folder / "pins.sqlite"
        self.skipped = 0.0
        self.store = stack.enter_context(PinStore(self.store_path, clock=self._clock))
        self.reports = ReportQueue(self.store, background=False)

    def steps(self) -> Iterator[Step]:
        """The story, each step played when it is asked for."""
        yield self.first_visit()
        yield self.second_visit()
        yield self.hotspot_without_dynpin()
        yield self.hotspot_with_dynpin()
        yield self.report_arrives()
        yield self.rotation_to_the_backup()
        yield self.key_that_nobody_knew()
        yield self.lock_out_ends()
        yield self.unpinning()

    # -- the steps ----------------------------------------------------------------------------------------------

    def first_visit(self) -> Step:
        """Pins are noted on first use, by both servers' headers and two client libraries."""
        step = Step(
            "First visit: the pins are noted",
            "Both certificates are sound, a pin is in each chain and a Backup Pin is not: a Valid Pinning Header, "
            "noted on first use for max-age seconds (§2.5).",
        )
        with PinnedClient(self.store, verify=self._context()) as client:
            response = client.get(BALANCE, headers={"Authorization": SECRET})
        with PinnedSession(self.store, context=self._context()) as session:
            basket = session.get(BASKET)
        for host, status, keys, how in (
            (BANK, response.status_code, self.bank_keys, "Starlette, ASGI middleware; httpx"),
            (SHOP, basket.status_code, self.shop_keys, "Flask, WSGI middleware; requests"),
        ):
            known = self.store.known_host(host)
            right = status == 200 and known is not None and known.pins == (keys.deployed, keys.offline)
            step.tell(f"{host} ({how}) answered {status}; {_pinned(known)}", right)
        step.facts["header"] = response.headers["Public-Key-Pins"]
        step.facts["known_hosts"] = [known.host for known in self.store.hosts()]
        return step

    def second_visit(self) -> Step:
        """A new process finds the pins on the disk and enforces them."""
        step = Step(
            "Second visit, from a new process: the pins are enforced",
            "Pins live in non-volatile storage (§2.5), and Pin Validation runs while TLS is set up, before an HTTP "
            "conversation begins (§2.6).",
        )
        visit = self._visit_from_new_process(BALANCE)
        step.tell(
            f"process {visit['process']} read {self.store_path.name}; {BANK} showed {_short(str(visit['matched']))}",
            visit["status"] == 200 and visit["matched"] == str(self.bank_keys.deployed),
        )
        step.facts.update(visit)
        return step

    def hotspot_without_dynpin(self) -> Step:
        """The fake Wi-Fi hotspot with a certificate that the client's trust store accepts."""
        step = Step(
            "The fake Wi-Fi hotspot, met by a client without pins",
            "The attacker's certificate names the bank and is signed by Careless CA, which the client trusts. To TLS "
            "all is well: any trusted CA can vouch for any name (§1).",
        )
        self.routes[BANK] = self.hotspot.port
        with httpx.Client(verify=self._context()) as client:
            response = client.get(BALANCE, headers={"Authorization": SECRET})
        heard = _heard(self.hotspot.received, b"authorization:")
        step.tell(f"{BANK} led to the hotspot, and the request went through: {response.status_code}")
        step.tell(f"the attacker read: {heard}", SECRET in heard)
        step.facts.update(status=response.status_code, attacker_read=heard, attacker_bytes=len(self.hotspot.received))
        return step

    def hotspot_with_dynpin(self) -> Step:
        """The same hotspot, met by the client that knows the bank."""
        step = Step(
            "The same hotspot, met by the client with pins",
            "None of the pinned keys is in the attacker's chain: a non-recoverable error, raised by the handshake, "
            "before the request was written (§2.6).",
        )
        before, connections = self.hotspot.application_bytes, self.hotspot.connections
        violation = self._refused(BALANCE)
        self.hotspot.wait_idle()
        heard = self.hotspot.application_bytes - before
        step.tell("the handshake was refused: PinValidationError", violation is not None)
        step.tell(
            f"the attacker accepted {self.hotspot.connections - connections} connection and received {heard} bytes "
            "of HTTP",
            heard == 0 and self.hotspot.connections > connections,
        )
        step.facts.update(error=str(violation), attacker_bytes=heard)
        return step

    def report_arrives(self) -> Step:
        """The violation report reaches the collector by another way."""
        step = Step(
            "The violation report arrives",
            "A client that refuses a connection tells the report-uri which pins it knew and which chains it saw "
            "(§3). The report waited on disk until the client was in an honest network.",
        )
        self.routes[BANK] = self.bank.port
        sent = self.reports.send()
        with httpx.Client() as client:
            listed = client.get(f"http://{REPORTS}/api/reports").json()["entries"]
            diagnosis = _verdict(client) if listed else None
        step.tell(f"{len(sent)} report sent to {self.report_uri}", len(sent) == 1)
        if len(listed) == 1:
            report = listed[0]["report"]
            shown = Pin.from_certificate(report["validated-certificate-chain"][0])
            right = report["hostname"] == BANK and f'pin-sha256="{self.bank_keys.deployed}"' in report["known-pins"]
            step.tell(f"the collector lists: {report['hostname']}:{report['port']} at {report['date-time']}", right)
            step.tell(f"  shown   {shown} (the attacker's)", shown == self.attackers_key.pin)
            for known in report["known-pins"]:
                step.tell(f"  pinned  {known.removeprefix('pin-sha256=')[1:-1]}")
            if diagnosis is None:
                step.tell("its verdict: none yet", False)
            else:
                step.tell(f"its verdict: {diagnosis['title']}", diagnosis["severity"] == "attack")
                step.facts.update(report=report, verdict=diagnosis["verdict"])
        else:
            step.tell(f"the collector lists {len(listed)} reports", False)
        return step

    def rotation_to_the_backup(self) -> Step:
        """The bank deploys its backup key and announces a new one."""
        step = Step(
            "The bank rotates to its backup key",
            "The backup was pinned before it was needed, so it passes; its header names the next backup, and the "
            "metadata becomes exactly that (§2.5, §4.3).",
        )
        backup = self.bank_keys.offline
        self._deploy(self.bank_keys.rotate)
        status = self._get(BALANCE)
        known = self.store.known_host(BANK)
        step.tell(f"{BANK} shows {_short(str(backup))}, the former backup", self.bank_keys.deployed == backup)
        step.tell(f"the client went on without a hitch: {status}", status == 200)
        right = known is not None and known.pins == (backup, self.bank_keys.offline)
        step.tell(_pinned(known), right)
        step.facts.update(status=status, pins=[str(pin) for pin in known.pins] if known else [])
        return step

    def key_that_nobody_knew(self) -> Step:
        """The bank makes the mistake that HPKP is known for."""
        step = Step(
            "The bank moves to a key that was never pinned",
            "To the client that is what an attack looks like, so its own user is locked out. This is why browsers "
            "gave the header up, and why a backup is not optional (§4.3).",
        )
        with self._server_log() as log:
            self._deploy(self.bank_keys.replace_all)
        step.tell(f"the bank's own middleware: {log[0] if log else 'silent'}", bool(log))
        violation = self._refused(BALANCE)
        known = self.store.known_host(BANK)
        step.tell(f"{BANK} shows {_short(str(self.bank_keys.deployed))}, unknown to every client")
        step.tell("the client refuses its own bank: PinValidationError", violation is not None)
        step.tell(f"until {_until(known)}, or until a person types: dynpin hosts forget {BANK}", known is not None)
        step.facts.update(error=str(violation))
        return step

    def lock_out_ends(self) -> Step:
        """Max-age passes."""
        step = Step(
            "Max-age passes: the lock-out ends",
            "An expired host is no longer a Known Pinned Host: its pins are ignored, and the next header is a first "
            "use again (§2.3.3). The bank has restarted its server by now, which pins the new key.",
        )
        self.skipped += MAX_AGE.total_seconds() - 60
        early = self._refused(BALANCE)
        step.tell("one minute before: still refused", early is not None)
        self.skipped += 61
        with self._restarted(self._policy(self.bank_keys)):
            status = self._get(BALANCE)
        known = self.store.known_host(BANK)
        step.tell(f"one second after: {BANK} answered {status}", status == 200)
        right = known is not None and known.pins[0] == self.bank_keys.deployed
        step.tell(f"noted anew; {_pinned(known)}", right)
        step.facts.update(status=status, days_skipped=self.skipped / 86_400)
        return step

    def unpinning(self) -> Step:
        """The bank asks to be forgotten, and the network may lead anywhere again."""
        step = Step(
            "max-age=0 unpins",
            "Only a connection that passed Pin Validation can say it (§2.3.1, §2.5). The pins are sent along, since "
            "Chromium ignored a bare max-age=0.",
        )
        with self._restarted(self._policy(self.bank_keys, mode="unpin")):
            status = self._get(BALANCE)
        known = self.store.known_host(BANK)
        step.tell(f"{BANK} answered {status} with max-age=0", status == 200)
        step.tell(f"{BANK} is no longer a Known Pinned Host", known is None)
        still = self.store.known_host(SHOP) is None  # the shop's week has passed meanwhile
        step.tell("no host is pinned any more: the shop's week is over too", still and len(self.store) == 0)
        step.facts.update(status=status, known_hosts=len(self.store))
        return step

    # -- the actors' hands --------------------------------------------------------------------------------------

    def _clock(self) -> float:
        return time.time() + self.skipped

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.roots))

    def _policy(self, keys: Keys, report_uri: str | None = None, mode: Mode = "enforce") -> Policy:
        return Policy(keys=keys.chain, backups=[keys.backup], max_age=MAX_AGE, report_uri=report_uri, mode=mode)

    def _deploy(self, change: Callable[[], None]) -> None:
        """Change the key files, have the header follow them, and serve the new key."""
        change()
        self.bank_policy.refresh()
        if self.bank.context is not None:
            self.bank_keys.load(self.bank.context)

    @contextlib.contextmanager
    def _restarted(self, policy: Policy) -> Generator[None]:
        """A server of the bank that has read its keys anew."""
        with serve_asgi(bank_app(policy), self.bank_keys) as server:
            self.routes[BANK] = server.port
            yield

    @staticmethod
    @contextlib.contextmanager
    def _server_log() -> Generator[list[str]]:
        """What the middleware warns of meanwhile, its first sentence each, kept from the terminal."""
        warnings: list[str] = []

        class Keep(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                warnings.append(record.getMessage().partition(":")[0])

        logger, handler = logging.getLogger("dynpin.middleware"), Keep(logging.WARNING)
        logger.addHandler(handler)
        try:
            yield warnings
        finally:
            logger.removeHandler(handler)

    def _visit_from_new_process(self, url: str) -> dict[str, object]:
        command = [sys.executable, "-m", "dynpin.lab.visitor", str(self.store_path), str(self.roots), url]
        done = subprocess.run(  # noqa: S603 - this very interpreter, with arguments made here
            [*command, str(self.bank.port)], capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            return {"process": None, "status": None, "matched": None, "error": done.stderr}
        told: dict[str, object] = json.loads(done.stdout)
        return told

    def _get(self, url: str) -> int | None:
        try:
            with PinnedClient(self.store, verify=self._context(), reporter=self.reports) as client:
                return client.get(url, headers={"Authorization": SECRET}).status_code
        except httpx.HTTPError:
            return None

    def _refused(self, url: str) -> PinValidationError | None:
        try:
            with PinnedClient(self.store, verify=self._context(), reporter=self.reports) as client:
                client.get(url, headers={"Authorization": SECRET})
        except httpx.HTTPError as error:
            return pin_violation(error)
        return None


def _pinned(known: KnownPinnedHost | None) -> str:
    if known is None:
        return "no pin is noted"
    return f"pinned to {' and '.join(_short(str(pin)) for pin in known.pins)} until {_until(known)}"


def _until(known: KnownPinnedHost | None) -> str:
    return "no time" if known is None or known.expires_at is None else rfc3339(known.expires_at)


def _short(pin: str) -> str:
    return f"{pin[:8]}…="


def _heard(received: bytes, field: bytes) -> str:
    for line in received.split(b"\r\n"):
        if line.lower().startswith(field):
            return line.decode("latin-1")
    return ""


def _verdict(client: httpx.Client) -> dict[str, Any] | None:
    """What the collector makes of the report. Its worker judges in a process of its own, within seconds."""
    end = time.monotonic() + _JUDGED_WITHIN
    while True:
        diagnosis = client.get(f"http://{REPORTS}/api/groups").json()["entries"][0]["diagnosis"]
        if diagnosis is not None or time.monotonic() > end:
            return cast("dict[str, Any] | None", diagnosis)
        time.sleep(0.05)
