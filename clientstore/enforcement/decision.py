"""What happens at the end of a handshake: Pin Validation against the store, and what follows a failure."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeVar

from dynpin.errors import InvalidHost, PinValidationError, StoreError
from dynpin.hosts import KnownPinnedHost, canonical_host, is_ip_literal
from dynpin.pins import Pin, chain_pins
from dynpin.report import Report, ReportedRecovery, build_report
from dynpin.validation import Validation, validate

from .certified import hosts_named, proves
from .chains import Certificate, der
from .explain import NOT_SENT, explain_unverified, explain_violation
from .protocols import Healer, Looked, Pins, Reporter
from .roots import public_roots_of_certifi
from .site import port_of_request

__all__ = [
    "Enforcement",
    "Handshake",
    "OnMismatch",
    "Peer",
    "PrivateRoots",
    "Proof",
]

# The exception has the full message. The log record is for programs that read the log.
logger = logging.getLogger("dynpin.clientstore")
logger.addHandler(logging.NullHandler())

PrivateRoots = Literal["enforce", "bypass"]
OnMismatch = Literal["refuse", "report"]
_Read = TypeVar("_Read")
_REMEMBERED_NAMES = 256


@dataclass(frozen=True, slots=True)
class Peer:
    """What one TLS handshake proved.

    Attributes:
        host: the name that TLS verified, canonical.
        pins: the pins of the validated chain, leaf first; empty if nothing was proved.
        validated: the chain that was verified, DER, leaf first.
        served: the certificates that the server sent, DER.
        reporter: takes reports about this connection, as given to :func:`~dynpin.clientstore.enforce`. It also takes
            the reports of a report-only policy (RFC 7469 §2.3.2).
    """

    host: str
    pins: tuple[Pin, ...]
    validated: tuple[bytes, ...]
    served: Callable[[], tuple[bytes, ...]]
    reporter: Reporter | None = None


class Proof:
    """What a handshake proved, as OpenSSL holds it. DER and pins are computed when they are first read."""

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
        return tuple([pin for certificate in self.validated for pin in _certificate_pins(certificate)])


@dataclass(slots=True)
class Handshake:
    """One finished handshake.

    Attributes:
        asked: the name that the caller gave, or None.
        name: the name that TLS used; CPython writes international names in its own way, so it may differ.
        strict: whether chain and host name were verified.
        chain: the verified chain, leaf first; empty if the session was resumed.
        resumed: whether a session was resumed; then there is no chain.
        earlier: what was proved by the handshake that made the offered session, or None.
        served: returns the certificates that the server sent, DER, for the report.
        may_wait: whether the thread may wait for the disk; an event loop's thread must not.
        names: the names in the certificate, if the chain was verified and the host name was not.
    """

    asked: str | None
    name: str | None
    strict: bool
    chain: list[Certificate]
    resumed: bool
    earlier: Proof | None
    served: Callable[[], tuple[bytes, ...]]
    may_wait: bool
    names: tuple[str, ...] = ()


class _Passed(NamedTuple):
    """A chain that has passed, the state of the store at that time, and the period in which the result holds."""

    proof: Proof
    state: object
    since: float
    until: float


class Enforcement:
    """The rule of one client: its store and its options.

    Args:
        asked: the store and all options. Two rules are the same if they have equal ones; without it, each is its own.
        matches_names: whether the program may compare the host with the certificate's names by itself, after TLS has
            verified the chain alone. Then the chain is checked for all these names, and is proved for the host if the
            host is one of them.

    Attributes:
        reporter: takes the violation reports, or None.
        healer: fetches the signed list of a refused host, or None.
    """

    healer: Healer | None = None

    def __init__(
        self,
        store: Pins,
        *,
        on_mismatch: OnMismatch = "refuse",
        private_roots: PrivateRoots = "enforce",
        public_roots: frozenset[bytes] | None = None,
        on_violation: Callable[[PinValidationError], None] | None = None,
        reporter: Reporter | None = None,
        allow_renegotiation: bool = False,
        matches_names: bool = False,
        asked: object = None,
    ) -> None:
        self.store = store
        self.on_mismatch: OnMismatch = on_mismatch
        self.private_roots = private_roots
        self.public_roots = public_roots
        self.on_violation = on_violation
        self.reporter = reporter
        self.allow_renegotiation = allow_renegotiation
        self._matches_names = matches_names
        self._asked = object() if asked is None else asked
        self._passed: dict[str, _Passed] = {}
        self._pid = 0
        if private_roots == "bypass" and public_roots is None:
            self.public_roots = public_roots_of_certifi()  # fails now if certifi is missing, not at the first handshake

    def same_as(self, other: Enforcement) -> bool:
        """Whether the other one has the same store and the same options."""
        return self._asked == other._asked

    def check(self, handshake: Handshake) -> Proof:
        """Run Pin Validation for one finished handshake (RFC 7469 §2.6).

        Returns:
            what the handshake proved, for noting and for a later resumption. If verification was off, or if only
            ``on_mismatch="report"`` let the connection through, nothing was proved and nothing is noted.

        Raises:
            PinValidationError: if the host is pinned to other keys, or if the pins cannot be looked up.
        """
        passed = self._remembered(handshake)
        if passed is not None:
            return passed
        if self._pid != os.getpid():
            self._pid = os.getpid()
            # Not earlier: a server that forks its workers must be able to enforce first, without opening anything.
            self._resume()
        try:
            return self._check(handshake)
        except PinValidationError as error:
            violation = _audited(error) if self.on_mismatch == "report" else error
            logger.error("Pin Validation failed: %s", violation, extra={"host": handshake.name})  # noqa: TRY400 - it is raised
            if self.on_violation is not None:
                try:
                    self.on_violation(violation)
                except Exception:
                    logger.exception("the on_violation callback failed for %s", handshake.name)
            if self.on_mismatch == "report":
                return Proof(handshake.name or "")
            raise

    def _resume(self) -> None:
        try:
            getattr(self.reporter, "resume", lambda: None)()
            if self.healer is not None:
                self.healer.resume()
        except Exception:  # no exception from here may reach the caller
            logger.exception("the work that an earlier process left cannot be continued")

    def _remembered(self, handshake: Handshake) -> Proof | None:
        """The result of an earlier check, if it still holds: same name, chain and store state, nothing expired."""
        passed = self._passed.get(handshake.name or "")
        if passed is None or not handshake.strict or handshake.resumed or handshake.asked != handshake.name:
            return None
        # OpenSSL compares certificates by their encodings.
        if passed.proof.chain != handshake.chain or not handshake.chain:
            return None
        try:
            state, now = self.store.look()
        except StoreError:
            return None  # the full check finds out why
        return passed.proof if state is passed.state and passed.since <= now <= passed.until else None

    def _check(self, handshake: Handshake) -> Proof:
        host = _canonical(handshake.name)
        if handshake.names and self._matches_names:
            handshake = self._match(handshake, host)
        if handshake.asked != handshake.name and _in_canonical_form(handshake.asked) != host:
            return self._check_two_names(host, handshake.asked or "")
        # RFC 7469 §2.3.3: IP addresses are never pinned.
        if is_ip_literal(host):
            return Proof(host, handshake.chain if handshake.strict else None)
        proof, unproved = Proof(host), None
        if not handshake.strict:
            unproved = "certificate or host name verification is switched off for this connection"
        elif handshake.resumed:
            # A resumed session has no chain of its own. The chain that counts is that of the handshake which made the
            # session, for this very host: OpenSSL does not check the name again.
            if handshake.earlier is None or handshake.earlier.host != host:
                unproved = "its TLS session was resumed, and dynpin did not see the handshake that made the session"
            else:
                proof = handshake.earlier
        else:
            proof = Proof(host, handshake.chain)
        looked = self._look_up(host)
        known, now = looked.known_host, looked.now
        if known is None:
            self._remember(handshake, proof, looked, float("inf"))
            return proof
        if unproved is not None:
            validation = validate(host, known, (), now=now)
            raise PinValidationError(explain_unverified(validation, unproved, self.store), validation=validation)
        validation = validate(host, known, proof.pins, certificates=proof.validated, now=now)
        if not validation.ok and not self._bypassed(proof):
            recovery = self._ask(known, now, may_wait=handshake.may_wait)
            report = self._report(validation, known, proof, handshake, now, recovery=recovery)
            raise PinValidationError(
                self._explained(validation, known, proof, now, recovery), validation=validation, report=report
            )
        if validation.ok:
            self._remember(handshake, proof, looked, float("inf") if known.expires_at is None else known.expires_at)
        return proof

    def _remember(self, handshake: Handshake, proof: Proof, looked: Looked, until: float) -> None:
        if not proof.chain or handshake.resumed or handshake.name is None:
            return
        if len(self._passed) >= _REMEMBERED_NAMES:
            self._passed.clear()
        self._passed[handshake.name] = _Passed(proof, looked.state, looked.now, until)

    def _check_two_names(self, host: str, asked: str) -> Proof:
        """Refuse if either name is pinned: ssl writes faß.test as fass.test, which is another host. Note neither."""
        # A name that only ssl can write, such as that of an emoji, has no canonical form, so it cannot be pinned.
        meant = _in_canonical_form(asked)
        names = (host,) if meant is None else (host, meant)
        for name in names:
            if not is_ip_literal(name) and self._look_up(name).known_host is not None:
                raise PinValidationError(
                    f"{name} is pinned, but TLS has verified {host} and the program asked for {meant or ascii(asked)}. "
                    f"{NOT_SENT} Ask for the name that you mean in its ASCII form: {' or '.join(reversed(names))}"
                )
        return Proof(host)

    def _match(self, handshake: Handshake, host: str) -> Handshake:
        """Check the chain for every other name in the certificate. The result is strict if the host is among them."""
        for other in self._read(host, lambda: set(hosts_named(handshake.names, self.store.hosts))) - {host}:
            self._check(replace(handshake, asked=other, name=other, strict=True, names=()))
        return replace(handshake, strict=any(proves(name, host) for name in handshake.names))

    def _look_up(self, host: str) -> Looked:
        return self._read(host, lambda: self.store.look_up(host))

    def _read(self, host: str, read: Callable[[], _Read]) -> _Read:
        try:
            return read()
        except StoreError as error:
            # Fail closed with an error of TLS: every event loop can end a handshake with one.
            raise PinValidationError(f"the pins of {host} cannot be read. {NOT_SENT} {error}") from error

    def _explained(
        self,
        validation: Validation,
        known: KnownPinnedHost,
        proof: Proof,
        now: float,
        recovery: ReportedRecovery | None,
    ) -> str:
        try:
            return str(explain_violation(validation, known, proof.validated, now, self.store, recovery=recovery))
        except Exception:  # the other side chose the certificates: an error in them must not hide the violation
            logger.exception("the violation at %s could not be explained", proof.host)
            return validation.reason

    def _report(
        self,
        validation: Validation,
        known: KnownPinnedHost,
        proof: Proof,
        handshake: Handshake,
        now: float,
        *,
        recovery: ReportedRecovery | None,
    ) -> Report | None:
        report: Report | None = None
        try:
            report = build_report(
                host=validation.host,
                port=port_of_request(validation.host),
                known_host=known,
                served=handshake.served(),
                validated=proof.validated,
                now=now,
                recovery=recovery,
            )
            if self.reporter is not None and known.report_uri is not None:
                soon = None if handshake.may_wait else getattr(self.reporter, "add_soon", None)
                (soon or self.reporter.add)(report, known.report_uri)
        except StoreError as error:  # a full disk, a file that cannot be written
            logger.warning("the violation report about %s could not be kept: %s", validation.host, error)
        except Exception:  # as above
            logger.exception("the violation report about %s could not be kept", validation.host)
        return report

    def _ask(self, known: KnownPinnedHost, now: float, *, may_wait: bool) -> ReportedRecovery | None:
        """Ask for the signed list of the host, and return the result; None if no root is noted."""
        noted, ends_at = known.recovery, known.root_ends_at
        if noted is None or noted.standing is None or (ends_at is not None and ends_at < now):
            return None
        if self.healer is None:
            return ReportedRecovery("off", noted.list_version)
        try:
            self.healer.ask(known, may_wait=may_wait)
        except StoreError as error:  # as above
            logger.warning("the signed list of %s cannot be asked for: %s", known.host, error)
        except Exception:  # the connection is refused in any case
            logger.exception("the signed list of %s cannot be asked for", known.host)
        else:
            # Keep the request even so: the next program may be able to read lists.
            return ReportedRecovery("not-installed" if find_spec("tuf") is None else "asked", noted.list_version)
        return ReportedRecovery("failed", noted.list_version)

    def _bypassed(self, proof: Proof) -> bool:
        # RFC 7469 §2.6: a client may skip Pin Validation for chains that end in a user-defined trust anchor. It then
        # sends no report either.
        if self.private_roots == "enforce" or self.public_roots is None or not proof.validated:
            return False
        return proof.validated[-1] not in self.public_roots


def _audited(error: PinValidationError) -> PinValidationError:
    text = str(error).replace(NOT_SENT, "This is an audit: the request is sent all the same.")
    return PinValidationError(text, validation=error.validation, report=error.report)


def _in_canonical_form(name: str | None) -> str | None:
    try:
        return canonical_host(name or "")
    except InvalidHost:
        return None


def _canonical(name: str | None) -> str:
    try:
        return canonical_host(name or "")
    except InvalidHost as error:
        raise PinValidationError(
            f"no pins can be looked up for this TLS connection: {error}. {NOT_SENT} Connect by host name, "
            "with server_hostname set."
        ) from None


# By certificate: most new chains have issuers that were seen before.
@lru_cache(maxsize=1024)
def _certificate_pins(certificate: bytes) -> tuple[Pin, ...]:
    return chain_pins((certificate,))
