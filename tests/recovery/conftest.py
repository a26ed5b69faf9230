"""A bank with its operator, its published list, a thief, and clients that have noted the bank's root."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from dynpin import Noting, Pin, PinValidationError, PublicKeyPins
from dynpin.clientstore import PinStore, enforce, peer_of
from dynpin.clientstore.background import living
from dynpin.clientstore.healing import Healing
from dynpin.lab.network import TLSServer
from tests.clientstore.world import leaf_pin
from tests.recovery.operator import Operator
from tests.recovery.publisher import Publisher

HOST = "bank.test"
MAX_AGE = 30 * 86_400
# The thief's: a root, and pins of keys that nobody has.
THIEF = b"t" * 32
PINS = tuple(Pin(bytes([number]) * 32) for number in (7, 8))


@dataclass
class Bank:
    """The site shows `lost` until its keys are lost, and then `new`, which no header has pinned."""

    authority: trustme.CA
    lost: trustme.LeafCert
    backup: trustme.LeafCert
    new: trustme.LeafCert
    site: TLSServer
    operator: Operator
    publisher: Publisher
    store: PinStore
    offset: list[float]
    folder: Path

    def clock(self) -> float:
        return time.time() + self.offset[0]

    @property
    def pins(self) -> tuple[Pin, ...]:
        return leaf_pin(self.lost), leaf_pin(self.backup)

    @property
    def new_pins(self) -> tuple[Pin, ...]:
        return leaf_pin(self.new), leaf_pin(self.backup)

    def header(self, *pins: Pin, max_age: int = MAX_AGE, root: bytes | None = None, uri: str | None = None) -> str:
        recovery = self.operator.repository.recovery(uri or self.publisher.uri)
        if root is not None:
            recovery = type(recovery)(root, recovery.uri)
        return str(PublicKeyPins(pins or self.pins, max_age, recovery=recovery))

    def context(self, store: PinStore | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.authority.cert_pem.bytes().decode("ascii"))
        return enforce(context, store or self.store, reporter="off")

    def visit(self, header: str | None, host: str = HOST, store: PinStore | None = None) -> Noting | None:
        """One visit over an enforced connection, with this header from the site."""
        store = store or self.store
        with (
            socket.create_connection(("127.0.0.1", self.site.port), timeout=60) as plain,
            self.context(store).wrap_socket(plain, server_hostname=host) as tls,
        ):
            peer = peer_of(tls)
            assert peer is not None
            return None if header is None else store.note(host, header, peer.pins, peer.validated)

    def lose_keys(self) -> None:
        self.site.show(self.new)

    def refused(self, host: str = HOST, store: PinStore | None = None) -> bool:
        try:
            self.visit(None, host, store)
        except PinValidationError:
            return True
        return False

    def finish_looks(self) -> None:
        """Wait until all looks that are due now have been made."""
        self.store.database.write(lambda _: None)  # after any write in the background
        for each in living(Healing):
            assert each.wait(120)

    def later(self, seconds: float = 31.0) -> None:
        """Move the clock past the time in which the same list is not looked at again."""
        self.offset[0] += seconds

    def outcome(self) -> str:
        (look,) = self.store.looks()
        assert look.outcome is not None
        return look.outcome

    def lock_out(self) -> None:
        """Let the client note the bank, and then lose the bank's keys."""
        self.operator.sign({HOST: self.pins})
        self.visit(self.header())
        self.lose_keys()

    def heals(self, host: str = HOST, store: PinStore | None = None) -> bool:
        """Whether a refused attempt starts a look, after which the next attempt passes."""
        refused = self.refused(host, store)
        self.finish_looks()
        return refused and not self.refused(host, store)

    def stays_refused(self, why: str) -> None:
        """The client refuses, its look has no effect, and the pins are unchanged."""
        before = self.store.entry(HOST)
        assert self.refused()
        self.finish_looks()
        assert why in self.outcome()
        assert self.store.entry(HOST) == before
        assert self.refused()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bank(authority: trustme.CA, tmp_path: Path) -> Iterator[Bank]:
    names = (HOST, "shop.test", "other.test")
    lost, backup, new = (authority.issue_cert(*names) for _ in range(3))
    operator, offset = Operator(tmp_path), [0.0]
    with (
        TLSServer(lost) as site,
        Publisher(operator.www) as publisher,
        PinStore(tmp_path / "pins", clock=lambda: time.time() + offset[0]) as store,
    ):
        yield Bank(authority, lost, backup, new, site, operator, publisher, store, offset, tmp_path)


__all__ = ["HOST", "MAX_AGE", "PINS", "THIEF", "Bank", "bank"]
