"""What happens at the end of a handshake: Pin Validation against the store, and what a failure sets off."""

from __future__ import annotations

import logging
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, Protocol

from dynpin.clientstore.chains import Certificate, der
from dynpin.clientstore.explain import explain_unverified, explain_violation
from dynpin.clientstore.reporting import ReportMode, ReportQueue
from dynpin.clientstore.store import PinStore
from dynpin.errors import InvalidHost, PinValidationError, StoreError, UnenforceableContext
from dynpin.hosts import KnownPinnedHost, canonical_host, is_ip_literal
from dynpin.pins import Pin, chain_pins
from dynpin.report import Report, build_report
from dynpin.validation import Validation, validate

__all__ = ["Enforcement", "Peer", "PrivateRoots", "Proof", "Reporter", "request_site"]

# The error says it all to whoever catches it; a record is for programs that ask for one.
logger = logging.getLogger("dynpin.clientstore")
logger.addHandler(logging.NullHandler())

PrivateRoots = Literal["enforce", "bypass"]
_REMEMBERED_SESSIONS = 1024
_REMEMBERED_NAMES = 256
# Of one name: the servers behind it may each have a certificate of their own.
_REMEMBERED_CHAINS = 4

# Host and port of the request that is being sent. Behind CONNECT, and for an SSLObject, the peer's address is not the
# site's, so only an adapter can tell; where none has, the report says that the port is unknown.
request_site: ContextVar[tuple[str, int] | None] = ContextVar("dynpin_request_site", default=None)


class Reporter(Protocol):
    """Takes violation reports to send (RFC 7469 §3): :class:`dynpin.clientstore.ReportQueue` is one."""

    def add(self, report: Report, report_uri: str) -> object:
        """Keep the report until it is sent; what fails here must not hide the violation."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """What one TLS handshake proved.

    Attributes:
        host: the name that TLS verified, canonical.
        pins: the pins of the validated chain, leaf first; empty where nothing was proved.
        validated: the chain that was verified, DER, leaf first.
        served: the certificates that the server sent, DER.
        reporter: takes reports about this connection, as :func:`~dynpin.clientstore.enforce` was told; an adapter
            gives it those of a report-only policy (RFC 7469 §2.3.2).
    """

    host: str
    pins: tuple[Pin, ...]
    validated: tuple[bytes, ...]
    served: Callable[[], tuple[bytes, ...]]
    reporter: Reporter | None = None


class Proof:
    """What a handshake proved, as OpenSSL holds it: DER and pins are made of it when somebody asks for them.

    Connections that show the same chain share one.
    """

    def __init__(self, host: str, chain: list[Certificate] | None = None) -> None:
        self.host = host
        self.chain = chain or []

    @cached_property
    def validated(self) -> tuple[bytes, ...]:
        """The chain in DER, leaf first."""
        return der(self.chain)

    @cached_property
    def pins(self) -> tuple[Pin, ...]:
        """The pins of the chain, leaf first."""
        return _pins(self.validated)


class _Passed(NamedTuple):
    """A chain that passed Pin Validation: against which state of the store, from when to when, and what of it counted.

    A chain that is the same from the certificate number `depth` on passes too: whatever the leaf, where it is an
    issuer whose key is pinned; whatever the chain, where the host is no Known Pinned Host.
    """

    proof: Proof
    depth: int
    known_host: str | None
    generation: int
    since: float
    until: float


class Enforcement:
    """The rule of one enforced context: its store, its options and the sessions that it has seen."""

    def __init__(
        self,
        store: PinStore,
        private_roots: PrivateRoots,
        on_violation: Callable[[PinValidationError], None] | None,
        reporter: Reporter | ReportMode | None,
        context: ssl.SSLContext,
        *,
        public_roots: frozenset[bytes] | None = None,
    ) -> None:
        self.store = store
        self.private_roots = private_roots
        self.public_roots = public_roots
        self.on_violation = on_violation
        self.reporter = ReportQueue(store, mode=reporter, context=context) if isinstance(reporter, str) else reporter
        self._asked = (store, private_roots, on_violation, reporter, public_roots)
        self._passed: dict[str | None, tuple[_Passed, ...]] = {}
        self._sessions: OrderedDict[bytes, Proof] = OrderedDict()
        self._lock = threading.Lock()
        if private_roots == "bypass" and public_roots is None:
            self.public_roots = _public_roots()  # its absence is told now, not at the first handshake

    def same_as(self, other: Enforcement) -> bool:
        """Whether the other one enforces the same pins in the same way."""
        return self._asked == other._asked

    def remember(self, session_id: bytes, proof: Proof) -> None:
        """Keep what the handshake that made a TLS session has proved, for the connection that resumes it."""
        with self._lock:
            self._sessions[session_id] = proof
            self._sessions.move_to_end(session_id)
            if len(self._sessions) > _REMEMBERED_SESSIONS:
                self._sessions.popitem(last=False)

    def recall(self, server_hostname: str | None, chain: list[Certificate]) -> Proof | None:
        """What passed Pin Validation before and does again: same name, same chain, same store, nothing expired.

        Behind the arithmetic of a handshake the processor's caches are cold, so that each step left out counts.
        OpenSSL compares certificates by their encodings, and makes no copy of them.
        """
        for passed in self._passed.get(server_hostname, ()):
            proof, depth, known_host, generation, since, until = passed
            if proof.chain != chain:
                if not depth or proof.chain[depth:] != chain[depth:]:
                    continue
                proof = Proof(proof.host, chain)
            try:
                now = self.store.now_unless_written(generation)
            except StoreError:
                return None  # the long way tells why
            if now is None or not since <= now <= until:
                return None
            if known_host is not None:
                self.store.count_use(known_host, now)
            return proof
        return None

    def check(
        self,
        server_hostname: str | None,
        *,
        strict: bool,
        resumed_session: bytes | None,
        chain: list[Certificate],
        served: Callable[[], tuple[bytes, ...]],
    ) -> Proof:
        """Run Pin Validation for one finished handshake.

        Args:
            server_hostname: the name that TLS used.
            strict: whether chain and host name were verified.
            resumed_session: the id of the session that was resumed, or None after a full handshake.
            chain: the verified chain, leaf first; empty where the session was resumed.
            served: gives the certificates that the server sent, DER, for the report.

        Raises:
            PinValidationError: where the host is pinned to other keys, or where that cannot be found out.
        """
        try:
            host = canonical_host(server_hostname or "")
        except InvalidHost as error:
            raise PinValidationError(
                f"no pins can be looked up for this TLS connection: {error}. Nothing was sent. Connect by host name, "
                "with server_hostname set."
            ) from None
        proof, cause = Proof(host), None
        if not strict:
            cause = "certificate or host name verification is switched off for this connection"
        elif resumed_session is not None:
            # A resumed session has no chain of its own: what counts is that of the handshake which made it, for this
            # very host, since OpenSSL does not look at the name again.
            with self._lock:
                earlier = self._sessions.get(resumed_session)
            if earlier is None or earlier.host != host:
                cause = "its TLS session was resumed from a handshake not seen here"
            else:
                proof = earlier
        else:
            proof = Proof(host, chain)
        # RFC 7469 §2.3.3: IP addresses are never pinned.
        if not is_ip_literal(host):
            passed = self._validate(proof, cause, served)
            if passed is not None and strict and resumed_session is None:
                self._remember_chain(server_hostname, passed)
        return proof

    def _remember_chain(self, server_hostname: str | None, passed: _Passed) -> None:
        if len(self._passed) >= _REMEMBERED_NAMES:
            self._passed.clear()
        earlier = self._passed.get(server_hostname, ())
        others = [other for other in earlier if other.generation == passed.generation] if earlier else ()
        self._passed[server_hostname] = (passed, *others)[:_REMEMBERED_CHAINS]

    def _validate(self, proof: Proof, cause: str | None, served: Callable[[], tuple[bytes, ...]]) -> _Passed | None:
        """What has passed; None where the rule of private roots alone let it through."""
        store = self.store
        try:
            known, now, generation = store.applies(proof.host)
        except StoreError as error:
            # Fails closed, as an error of TLS, which every event loop knows how to end a handshake with.
            raise PinValidationError(
                f"the pins of {proof.host} cannot be read, so nothing was sent: {error}"
            ) from error
        validation, depth = _hold_against(known, proof, now)
        if validation.ok:
            if known is None:
                return _Passed(proof, depth, None, generation, now, float("inf"))
            store.count_use(known.host, now)
            until = float("inf") if known.expires_at is None else known.expires_at
            return _Passed(proof, depth, known.host, generation, now, until)
        if cause is None and self._bypassed(proof):
            return None
        if cause is not None:
            violation = PinValidationError(explain_unverified(validation, cause, store), validation=validation)
        else:
            report = self._report(validation, proof, served, now)
            message = _explained(validation, proof, now, store)
            violation = PinValidationError(message, validation=validation, report=report)
        logger.error("Pin Validation failed: %s", violation, extra={"host": proof.host})
        if self.on_violation is not None:
            try:
                self.on_violation(violation)
            except Exception:
                logger.exception("the on_violation callback failed for %s", proof.host)
        raise violation

    def _report(
        self, validation: Validation, proof: Proof, served: Callable[[], tuple[bytes, ...]], now: float
    ) -> Report | None:
        known = validation.known_host
        if known is None:
            return None
        report: Report | None = None
        try:
            report = build_report(
                host=proof.host,
                port=_port(proof.host),
                known_host=known,
                served=served(),
                validated=proof.validated,
                now=now,
            )
            if self.reporter is not None and known.report_uri is not None:
                self.reporter.add(report, known.report_uri)
        except Exception:  # the certificates are the other side's: nothing that they set off may hide the violation
            logger.exception("the violation report about %s could not be kept", proof.host)
        return report

    def _bypassed(self, proof: Proof) -> bool:
        # RFC 7469 §2.6: a client may disable Pin Validation for chains that end in a user-defined trust anchor, and
        # then sends no report either.
        if self.private_roots == "enforce" or self.public_roots is None or not proof.validated:
            return False
        return proof.validated[-1] not in self.public_roots


def _hold_against(known: KnownPinnedHost | None, proof: Proof, now: float) -> tuple[Validation, int]:
    """Pin Validation, and from which certificate on a chain must be the same to pass it too.

    RFC 7469 §2.6 asks for one pin of the chain, so a chain passes where a part of it does: nothing is made of the
    certificates above the first whose key is pinned. What has none is held against the pins whole, so that no refusal,
    and nothing that is said of one, ever comes of a part.
    """
    if known is None:  # whatever the chain
        return validate(proof.host, None, (), now=now), len(proof.chain)
    wanted = frozenset(known.pins)
    part: tuple[bytes, ...] = ()
    for number, certificate in enumerate(proof.chain):
        part += der([certificate])
        if not wanted.isdisjoint(_certificate_pins(part[-1])):
            validation = validate(proof.host, known, _pins(part), certificates=part, now=now)
            if validation.ok:
                return validation, number
            break  # expired, for one
    return validate(proof.host, known, proof.pins, certificates=proof.validated, now=now), 0


def _explained(validation: Validation, proof: Proof, now: float, store: PinStore) -> str:
    if validation.known_host is not None:
        try:
            return str(explain_violation(validation, validation.known_host, proof.validated, now, store))
        except Exception:  # as with the report
            logger.exception("the violation at %s could not be explained", proof.host)
    return str(validation.reason)


def _port(host: str) -> int | None:
    """The port of the request, where it is this host's: on the way to a site a proxy has a handshake of its own."""
    site = request_site.get()
    try:
        return site[1] if site is not None and canonical_host(site[0]) == host else None
    except InvalidHost:
        return None


def _pins(validated: tuple[bytes, ...]) -> tuple[Pin, ...]:
    return tuple([pin for certificate in validated for pin in _certificate_pins(certificate)])


# By certificate: a chain that was never seen has mostly issuers that were.
@lru_cache(maxsize=1024)
def _certificate_pins(certificate: bytes) -> tuple[Pin, ...]:
    return chain_pins((certificate,))


@lru_cache(maxsize=1)
def _public_roots() -> frozenset[bytes]:
    try:
        import certifi  # noqa: PLC0415 - needed for this one option
    except ImportError:
        raise UnenforceableContext(
            'private_roots="bypass" needs the list of public roots: pip install certifi'
        ) from None
    # Not by a context, which truststore's would not tell.
    _, *roots = certifi.contents().split(ssl.PEM_HEADER)
    return frozenset(
        ssl.PEM_cert_to_DER_cert(f"{ssl.PEM_HEADER}{root.partition(ssl.PEM_FOOTER)[0]}{ssl.PEM_FOOTER}")
        for root in roots
    )
