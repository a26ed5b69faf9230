"""A user agent made of dynpin's client library: dynpin itself, and the base of the models.

A model replaces the agent's memory, and its way to enforce pins. It uses dynpin's own parse, note and validate.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from email.message import Message
from functools import partial
from typing import Generic, Protocol, TypedDict, TypeVar

import httpx

from dynpin.clientstore import Peer, PinOptions, PinStore, ReportQueue, enforce, note_response, peer_of, pin_violation
from dynpin.clientstore.enforcement import request_site, verified_chain
from dynpin.errors import StoreError, without_codes
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.agents.agent import Machine, Sent, Visit
from dynpin.lab.network import loopback_names
from dynpin.noting import Noting
from dynpin.pins import Pin, chain_pins

__all__ = ["HTTPS_PORT", "DynpinAgent", "Fields", "LibraryAgent", "Memory", "one_line"]

HTTPS_PORT = 443
# How long the looks at signed lists may take on a busy machine, in seconds.
_LONGEST_LOOK = 120.0


class Memory(Protocol):
    """Where an agent keeps its pins: a PinStore, or a model's own store."""

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """The entry that applies to a host now."""
        ...

    def hosts(self) -> list[KnownPinnedHost]:
        """All living entries, by name."""
        ...

    def pin(self, host: str, pins: Sequence[Pin], *, expires_at: float | None = None) -> object:
        """Add static pins."""
        ...

    def forget(self, host: str) -> bool:
        """Remove a host's own entry; False if none was alive."""
        ...

    def close(self) -> None:
        """End normally."""
        ...


_Memory = TypeVar("_Memory", bound=Memory)
# The values of a header field in a response, one for each time that it occurs.
Fields = Callable[[str], Sequence[str]]


class _Bound(TypedDict, total=False):
    max_hosts_per_domain: int


class _Options(TypedDict):
    limits: httpx.Limits
    timeout: float
    trust_env: bool


# A new connection for each visit, and no proxies from the environment of the person who runs the lab.
_OPTIONS = _Options(limits=httpx.Limits(max_keepalive_connections=0), timeout=60.0, trust_env=False)


class LibraryAgent(ABC, Generic[_Memory]):
    """A user agent made of a memory for pins and an httpx client.

    Args:
        machine: the machine that it is installed on.

    Attributes:
        store: its memory.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.store = self.open_store()
        self._client: httpx.Client | None = None
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._trusted: tuple[bytes, ...] = ()
        self._noting: Noting | None = None

    @abstractmethod
    def open_store(self) -> _Memory:
        """Open the agent's memory."""

    @abstractmethod
    def harden(self, context: ssl.SSLContext) -> None:
        """Make the context enforce the agent's memory. The context trusts the machine's roots."""

    @abstractmethod
    def note(self, host: str, peer: Peer, fields: Fields) -> Noting:
        """Note the pins in the fields of a response."""

    def visit(self, host: str, *, secret: str, path: str = "/") -> Visit:
        """As :meth:`UserAgent.visit`."""
        known = self._known_before(host)
        self._noting = None
        try:
            with (
                loopback_names(self.machine.network),
                self.client().stream("GET", f"https://{host}{path}", headers={"Authorization": secret}) as response,
            ):
                connection = response.extensions["network_stream"].get_extra_info("socket")
                chain = chain_pins(verified_chain(connection))
                response.read()
        except httpx.TransportError as error:
            violation = pin_violation(error)
            if violation is None:
                return Visit(host=host, failure=one_line(error), known_host=known)
            validation = violation.validation
            if validation is None:
                return Visit(host=host, refusal=one_line(violation), known_host=known, section="2.6")
            return Visit(
                host=host,
                refusal=validation.reason,
                chain=validation.chain,
                known_host=validation.known_host,
                section=validation.section,
            )
        noting = self._noting if ENFORCE_NAME in response.headers else None
        return Visit(
            host=host,
            status=response.status_code,
            chain=chain,
            known_host=known,
            noting=noting,
            section=noting.section if noting else "",
        )

    def load(self, hosts: Sequence[str]) -> None:
        """As :meth:`UserAgent.load`, each host on a connection of its own: dynpin notes nothing for another name.

        With http.client, which takes a third less time than httpx.
        """
        self.client()
        with loopback_names(self.machine.network):
            for host in hosts:
                with contextlib.closing(self._connection(host)) as connection:
                    self._get(connection, host)

    def _connection(self, host: str) -> http.client.HTTPSConnection:
        """A connection to a host, opened by the first request."""
        return http.client.HTTPSConnection(host, context=self._tls, timeout=_OPTIONS["timeout"])

    def _get(self, connection: http.client.HTTPSConnection, host: str, peer: Peer | None = None) -> Peer | None:
        """GET ``/`` of a host, and note its pins. Returns what the handshake proved; None without an answer.

        `peer` is what the connection has proved for this host; by default what its own handshake did.
        """
        request_site.set((host, HTTPS_PORT))
        try:
            connection.request("GET", "/", headers={"Host": host})
            peer = peer or peer_of(connection.sock)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            return None
        if peer is not None and self.machine.pins:
            self.note(host, peer, partial(_values, response.headers))
        return peer

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """As :meth:`UserAgent.known_host`."""
        return self.store.known_host(host)

    def known_hosts(self) -> list[KnownPinnedHost]:
        """As :meth:`UserAgent.known_hosts`."""
        return self.store.hosts()

    def preload(self, host: str, pins: Sequence[Pin], *, expires_at: float | None = None) -> None:
        """As :meth:`UserAgent.preload`."""
        self.store.pin(host, pins, expires_at=expires_at)

    def forget(self, host: str) -> bool:
        """As :meth:`UserAgent.forget`."""
        return self.store.forget(host)

    def report_at_once(self) -> list[Sent]:
        """As :meth:`UserAgent.report_at_once`."""
        return []

    def send_reports(self) -> list[Sent]:
        """As :meth:`UserAgent.send_reports`."""
        return []

    def restart(self, *, crashed: bool = False) -> None:
        """As :meth:`UserAgent.restart`. After a crash the store is not closed: what it has noted is on the disk."""
        self._disconnect()
        if not crashed:
            self.store.close()
        self.store = self.open_store()

    def close(self) -> None:
        """As :meth:`UserAgent.close`."""
        self._disconnect()
        self.store.close()

    def _known_before(self, host: str) -> KnownPinnedHost | None:
        if not self.machine.pins:
            return None
        try:
            return self.store.known_host(host)
        except StoreError:  # the handshake gets the same error, and refuses
            return None

    def client(self) -> httpx.Client:
        """A client that trusts the roots that the machine trusts now."""
        trusted = (*self.machine.public_roots, *self.machine.private_roots)
        if self._client is None or trusted != self._trusted:
            self._disconnect()
            self._tls = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if trusted:
                context.load_verify_locations(cadata=b"".join(trusted))
            hooks: dict[str, list[Callable[..., None]]] = {}
            if self.machine.pins:
                self.harden(context)
                hooks = {"request": [_tell_site], "response": [self._on_response]}
            self._client = httpx.Client(verify=context, event_hooks=hooks, **_OPTIONS)
            self._trusted = trusted
        return self._client

    def _on_response(self, response: httpx.Response) -> None:
        peer = peer_of(response.extensions["network_stream"].get_extra_info("socket"))
        if peer is not None:  # None for a report that is sent by http
            self._noting = self.note(response.request.url.host, peer, response.headers.get_list)

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class DynpinAgent(LibraryAgent[PinStore]):
    """dynpin as its users install it: PinStore, enforce, note_response, ReportQueue."""

    _queue: ReportQueue | None = None

    def open_store(self) -> PinStore:
        """A store in the machine's folder, or in memory."""
        settings, clock = self.machine.settings, self.machine.clock
        if settings.get("private", False):
            return PinStore.private(clock=clock)
        bound = _Bound()
        if "max_hosts_per_domain" in settings:
            bound["max_hosts_per_domain"] = settings["max_hosts_per_domain"]
        store = PinStore(
            self.machine.folder / "pins.sqlite",
            clock=clock,
            partition=settings.get("partition"),
            on_clock_jump=settings.get("on_clock_jump", "warn"),
            **bound,
        )
        if "follows" in settings:
            uri, root = settings["follows"]
            with loopback_names(self.machine.network):
                store.follow(uri, root)
        return store

    def visit(self, host: str, *, secret: str, path: str = "/") -> Visit:
        """Like :meth:`UserAgent.visit`. Returns after every signed list that is due was looked at."""
        if self._is_look_due():
            # The background thread sleeps by the machine's clock. A new client's thread starts at once.
            self._disconnect()
        with loopback_names(self.machine.network):
            visit = super().visit(host, secret=secret, path=path)
            if visit.refusal is not None:
                with contextlib.suppress(StoreError):  # the store may be the reason for the refusal
                    self.store.database.write(lambda _: None)  # wait for the request for a look
            end = time.monotonic() + _LONGEST_LOOK
            while visit.failure is None and self._is_look_due():
                if time.monotonic() > end:
                    raise TimeoutError("looking at the signed lists has not ended")
                time.sleep(0.002)
        return visit

    def _is_look_due(self) -> bool:
        if not self.machine.pins or self.machine.settings.get("recovery") == "off":
            return False
        try:
            now = self.machine.clock()
            return any(look.next_look_at is not None and look.next_look_at <= now for look in self.store.looks())
        except StoreError:  # the handshake gets the same error, and refuses
            return False

    def harden(self, context: ssl.SSLContext) -> None:
        """Use :func:`enforce`. Reports wait until :meth:`send_reports`, so that the story decides when."""
        settings = self.machine.settings
        self._queue = ReportQueue(self.store, mode=settings.get("reports", "all"), context=context, background=False)
        options = PinOptions(reporter=self._queue, recovery=settings.get("recovery", "on"))
        if settings.get("private_roots") == "bypass":
            options |= PinOptions(private_roots="bypass", public_roots=self.machine.public_roots)
        enforce(context, self.store, **options)

    def note(self, host: str, peer: Peer, fields: Fields) -> Noting:
        """Note like every adapter."""
        return note_response(self.store, host, peer, fields(ENFORCE_NAME), fields(REPORT_ONLY_NAME), port=HTTPS_PORT)

    def send_reports(self) -> list[Sent]:
        """As :meth:`UserAgent.send_reports`."""
        self.client()
        if self._queue is None:
            return []
        with loopback_names(self.machine.network):
            deliveries = self._queue.send()
        return [Sent(each.report.report_uri, each.outcome == "sent", each.reason) for each in deliveries]


def _values(fields: Message, name: str) -> list[str]:
    return fields.get_all(name) or []


def _tell_site(request: httpx.Request) -> None:
    """Set the port of the request for reports."""
    request_site.set((request.url.host, request.url.port or HTTPS_PORT))


def one_line(error: Exception) -> str:
    """The first line of the innermost cause: httpx wraps the error of TLS."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return without_codes(line)
