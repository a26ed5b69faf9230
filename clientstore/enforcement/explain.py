"""What a person reads when a connection is refused: what happened, possible causes, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dynpin.durations import duration
from dynpin.hosts import KnownPinnedHost
from dynpin.pins import chain_pins
from dynpin.report import ReportedRecovery, rfc3339
from dynpin.validation import Validation

from ..store import NO_TUF, forget_command

__all__ = ["NOT_SENT", "Explanation", "explain_unverified", "explain_violation"]

# Part of every refusal. If the client has certificates, TLS has already shown them.
NOT_SENT = "No request was sent."


class _Store(Protocol):
    @property
    def path(self) -> Path | str: ...
    @property
    def is_default(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Explanation:
    """A failed Pin Validation for a person, in parts. As a string it is the message of the error.

    Attributes:
        headline: what happened, to which host.
        shown: the pins of the validated chain, leaf first, each with the name of its certificate.
        pinned: the pins of the entry that applied, and the certificates that it names.
        origin: how long ago they were noted, from which host, and until when they hold.
        place: the file of the store.
        meaning: the possible causes.
        way_out: what to do; it leads to `command`.
        command: the command that forgets the pins, or the method call for pins in a program's memory.
        recovery: whether a signed list can help, or None if no root was noted.
    """

    headline: str
    shown: tuple[tuple[str, str], ...]
    pinned: tuple[str, ...]
    origin: str
    place: str
    meaning: str
    way_out: str
    command: str
    recovery: str | None = None

    def __str__(self) -> str:
        lines = [self.headline]
        lines += _column("shown", [f"{pin}  ({who})" for pin, who in self.shown] or ["no verified chain"])
        lines += _column("pinned", self.pinned)
        lines += _column("", [self.origin, self.place])
        lines += [f"  {self.meaning}"]
        lines += [] if self.recovery is None else [f"  {self.recovery}"]
        lines += [f"  {self.way_out}  {self.command}"]
        return "\n".join(lines)


def explain_violation(
    validation: Validation,
    known: KnownPinnedHost,
    chain: Sequence[bytes],
    now: float,
    store: _Store,
    *,
    recovery: ReportedRecovery | None = None,
) -> Explanation:
    """Explain a failed Pin Validation: the text of a PinValidationError.

    Args:
        validation: the Pin Validation that failed.
        known: the entry that applied.
        chain: the validated chain, DER, leaf first.
        now: seconds since the epoch, UTC.
        store: the store that has the entry.
        recovery: what is being done about recovery; None if no root was noted.
    """
    by = "this host" if known.host == validation.host else f"{known.host}, which covers its subdomains"
    until = "until they are forgotten" if known.expires_at is None else f"until {rfc3339(known.expires_at)}"
    age = duration(now - known.noted_at)
    if known.source == "static":
        of = "" if known.origin is None else f" of {known.origin}"
        origin = f"static pins{of}, set {age} ago for {by}, {until}"
    else:
        origin = f"noted {age} ago from {by}, {until}"
    if known.is_expired(now):
        meaning = f"They were set to refuse the host from then on. {NOT_SENT}"
        way_out = "Get the new pins, or give these up"
    elif known.certificates:
        meaning = f"This is an attack, or the site has renewed its certificate. {NOT_SENT}"
        way_out = "If you know that the new certificate is right"
    else:
        meaning = f"This is an attack, or the site changed its key without a backup pin. {NOT_SENT}"
        way_out = "If you know that the new key is right"
    in_memory = isinstance(store.path, str)
    return Explanation(
        headline=f"{validation.reason}.",
        shown=tuple(_named(chain)),
        pinned=(*map(str, known.pins), *(f"certificate {digest.hex()}" for digest in known.certificates)),
        origin=origin,
        place="in the memory of this program" if in_memory else f"in {store.path}",
        meaning=meaning,
        way_out=f"{way_out}, in the program:" if in_memory else f"{way_out}:",
        command=_removal(known.host, store),
        recovery=_recovery(known, recovery),
    )


def _recovery(known: KnownPinnedHost, reported: ReportedRecovery | None) -> str | None:
    standing = None if known.recovery is None else known.recovery.standing
    if standing is None or reported is None:
        return None
    begin = f"Its owner may have signed new keys at {standing.uri}"
    match reported.state:
        case "asked":
            return (
                f"If its owner has signed new keys at {standing.uri}, they are taken within a minute: try again then."
            )
        case "not-installed":
            return f"{begin}, and {NO_TUF}."
        case "off":
            return f"{begin}, and this program does not look there."
        case "failed":
            return f"{begin}, but the pin store could not keep the request to look there."


def explain_unverified(validation: Validation, cause: str, store: _Store) -> str:
    """The message for a pinned host if the connection's chain was not verified."""
    known = validation.known_host
    host = validation.host if known is None else known.host
    return (
        f"{validation.host} is pinned, but {cause}.\n"
        f"  A chain that was not verified proves nothing, so its pins cannot be checked. {NOT_SENT}\n"
        "  Turn certificate and host name verification on again for this connection,\n"
        f"  or give up the pins:  {_removal(host, store)}"
    )


def _removal(host: str, store: _Store) -> str:
    """How to forget the pins of a host: a command, or a method call for a store in memory."""
    if isinstance(store.path, str):
        return f"store.forget({host!r})"
    return forget_command(host, None if store.is_default else store.path)


def _column(label: str, values: Sequence[str]) -> list[str]:
    return [f"  {label if index == 0 else '':<8}{value}" for index, value in enumerate(values)]


def _named(chain: Sequence[bytes]) -> list[tuple[str, str]]:
    named: list[tuple[str, str]] = []
    for index, der in enumerate(chain):
        pin = next(iter(chain_pins([der])), "no pin can be formed")
        name = _common_name(der)
        role = "leaf" if index == 0 else "issuer"
        named.append((str(pin), f"{role}, {name}" if name else role))
    return named


def _common_name(der: bytes) -> str:
    # Imported here, since only a violation needs it. A program that `dynpin run` starts in another environment may
    # not have it.
    try:
        from cryptography import x509  # noqa: PLC0415
        from cryptography.x509.oid import NameOID  # noqa: PLC0415

        subject = x509.load_der_x509_certificate(der).subject
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME) or list(subject)
    # OpenSSL accepts certificates that cryptography does not (version 4; a name that is a BIT STRING), and the errors
    # differ. The message then shows the pin alone.
    except Exception:  # noqa: BLE001
        return ""
    # The other side chose the name, and the text goes to a terminal.
    return "".join(char if char.isprintable() else "?" for char in str(names[-1].value))[:64] if names else ""
