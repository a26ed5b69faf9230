"""The terms of a policy, and what is refused of them because it would harm (RFC 7469 §2.1, §2.5, §4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from dynpin.errors import InvalidHeader, InvalidHost, PolicyError
from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host, is_ip_literal, superdomains
from dynpin.pins import Pin

from .keys import Chain, KeySource, path_of, read_chain, read_pin

__all__ = ["Built", "Mode", "Pinned", "Terms", "one_of"]

Mode = Literal["enforce", "report-only", "unpin"]
Pinned = Literal["leaf", "chain"] | int | Sequence[int]

# RFC 7469 §4.1: on the order of 60 days.
_LONGEST_MAX_AGE = timedelta(days=60)

_MAKE_A_BACKUP = (
    "Make a key that is deployed nowhere, keep its private half offline and name its public half or CSR in backups= "
    "(openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out backup.key; "
    "openssl pkey -in backup.key -pubout -out backup.pub)"
)


class Built(NamedTuple):
    """The header that some terms make, and the pins of each chain that is deployed."""

    header: PublicKeyPins
    chains: tuple[frozenset[Pin], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a site wants its clients to pin; the attributes are those of :class:`~dynpin.middleware.Policy`."""

    keys: tuple[KeySource, ...]
    backups: tuple[KeySource, ...] = ()
    max_age: timedelta | int | None = None
    include_subdomains: bool = False
    report_uri: str | None = None
    mode: Mode = "enforce"
    pinned: Pinned = "leaf"
    hosts: tuple[str, ...] = ()
    allow_long_max_age: bool = False

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that these terms are read from."""
        return tuple(path for source in (*self.keys, *self.backups) if (path := path_of(source)) is not None)

    def build(self) -> Built:
        """Read the files and make the header.

        Raises:
            PolicyError: where it would lock users out, protect nobody, or could not be sent.
        """
        one_of("mode", self.mode, get_args(Mode))
        max_age = self._seconds()
        if self.mode == "report-only" and self.report_uri is None:
            raise PolicyError(
                "mode='report-only' without report_uri= does nothing: clients note no pins of it, and have nobody to "
                "tell of a violation (RFC 7469 §2.1.4, §2.3.2). Name the endpoint that takes the reports"
            )
        chains = [read_chain(source, f"keys[{number}]") for number, source in enumerate(self.keys)]
        backups = [read_pin(source, f"backups[{number}]") for number, source in enumerate(self.backups)]
        pins = [pin for chain in chains for pin in self._pins_of(chain)]
        # RFC 7469 §2.5: a pin in the chain and one outside it, else clients note nothing.
        if not pins:
            raise PolicyError(
                "no pin of the deployed chain would be in the header, which clients then ignore (RFC 7469 §2.5). Name "
                "the chain file that the server shows, such as keys='tls/fullchain.pem'"
            )
        # To unpin, a Backup Pin is not needed; where there is one it goes along, since some clients want it.
        if self.mode != "unpin":
            _check_backups(chains, backups)
        try:
            header = PublicKeyPins(
                pins=(*pins, *(pin for _, pin in backups)),
                max_age=max_age,
                include_subdomains=self.include_subdomains,
                report_uri=None if self.mode == "unpin" else self.report_uri,
                report_only=self.mode == "report-only",
            )
        except InvalidHeader as error:
            raise PolicyError(f"these terms make no header that clients accept: {error}") from None
        if header.report_uri is not None:
            self._check_report_uri(header.report_uri, chains)
        return Built(header, tuple(frozenset(pin for pin in chain.pins if pin is not None) for chain in chains))

    def _seconds(self) -> int:
        """The max-age to send, in seconds (§2.1.2)."""
        if self.mode == "unpin":
            return 0
        if self.max_age is None:
            # §2.1.2: meaningless in report-only, and not sent.
            if self.mode == "report-only":
                return 0
            raise PolicyError(
                "max_age= is missing: for how long shall clients refuse every other key? Begin with an hour, and go "
                "up to timedelta(days=30) once all is well"
            )
        given = self.max_age
        try:
            age = timedelta(seconds=given) if isinstance(given, int) and not isinstance(given, bool) else given
        except OverflowError:
            age = timedelta(days=999_999_999)
        if not isinstance(age, timedelta) or age.microseconds or age < timedelta():
            raise PolicyError(
                f"max_age={given!r} is no number of whole seconds from 1 (RFC 7469 §2.1.2): give a timedelta, or an "
                "int of seconds (not milliseconds)"
            )
        if not age and self.mode == "enforce":
            raise PolicyError(
                "max_age=0 makes clients forget their pins: if that is what you want, say mode='unpin', which sends "
                "it in the form that every client takes"
            )
        if age > _LONGEST_MAX_AGE and not self.allow_long_max_age:
            raise PolicyError(
                f"max_age is {age}: whoever loses the keys locks users out for that long, and clients cap it "
                f"at about {_LONGEST_MAX_AGE.days} (RFC 7469 §4.1). Take {_LONGEST_MAX_AGE.days} days or fewer, or say "
                "allow_long_max_age=True"
            )
        return int(age.total_seconds())

    def _pins_of(self, chain: Chain) -> list[Pin]:
        """The pins of one chain that go into the header."""
        if self.pinned == "chain":
            return [pin for pin in chain.pins if pin is not None]
        if isinstance(self.pinned, str):
            one_of("pinned", self.pinned, ("leaf", "chain"))
            numbers: Sequence[int] = (0,)
        else:
            numbers = (self.pinned,) if isinstance(self.pinned, int) else self.pinned
        found: list[Pin] = []
        for number in numbers:
            pin = chain.pins[number] if 0 <= number < len(chain.pins) else None
            if pin is None:
                raise PolicyError(
                    f"pinned={self.pinned!r}: {chain.label} has no certificate {number} that can be pinned; it holds "
                    f"{len(chain.pins)}, counted from 0, the leaf"
                )
            found.append(pin)
        return found

    def _check_report_uri(self, uri: str, chains: Sequence[Chain]) -> None:
        """RFC 7469 §2.1.4: a host whose pins fail cannot be sent the report of it."""
        try:
            target = canonical_host(urlsplit(uri).hostname or "")
            # Wildcards too: "*" is a label like any other to canonical_host.
            hosts = [canonical_host(name) for name in self.hosts]
        except InvalidHost as error:
            raise PolicyError(f"report_uri= or hosts=: {error}") from None
        if is_ip_literal(target):  # §2.3.3: never pinned
            return
        told = [name for chain in chains for name in chain.names or ()]
        if not hosts and all(chain.names is None for chain in chains):
            raise PolicyError(
                f"whether {uri} is on the pinned host cannot be told: no certificate in keys= says which DNS names it "
                "is for. Say which hosts this server answers: hosts=['www.example.com']"
            )
        for name in hosts or told:
            if _covers(name, target, self.include_subdomains):
                source = "hosts=" if hosts else "the deployed certificate"
                raise PolicyError(
                    f"report_uri {uri} is on the pinned host {name} (of {source}): when its pins fail, reports to it "
                    "fail too, and no client sends them (RFC 7469 §2.1.4). Take a host that these pins do not cover"
                    + ("; includeSubDomains covers every subdomain" if self.include_subdomains else "")
                    + ("" if hosts else ", or say with hosts= which of the certificate's names this server answers")
                )


def _deployed(chains: Iterable[Chain]) -> dict[Pin, str]:
    """Every pin of the deployed chains, and where it stands."""
    return {
        pin: f"certificate {number} of {chain.label}"
        for chain in chains
        for number, pin in enumerate(chain.pins)
        if pin is not None
    }


def _check_backups(chains: Iterable[Chain], backups: Sequence[tuple[str, Pin]]) -> None:
    """RFC 7469 §2.5, §4.3: one pin at least that no deployed chain holds."""
    deployed = _deployed(chains)
    if any(pin not in deployed for _, pin in backups):
        return
    if not backups:
        raise PolicyError(
            "there is no Backup Pin: clients ignore a header without one, and whoever loses the only key locks every "
            f"user out (RFC 7469 §2.5, §4.3). {_MAKE_A_BACKUP}"
        )
    shown = "; ".join(f"{label} is the key of {deployed[pin]}" for label, pin in backups)
    raise PolicyError(
        f"no Backup Pin stands outside the deployed chain: {shown}. Clients ignore such a header (RFC 7469 §2.5). If "
        "the backup has just been deployed, it is time for the next one, and on_invalid='silence' starts the server "
        f"without a header meanwhile. {_MAKE_A_BACKUP}"
    )


def _covers(name: str, target: str, include_subdomains: bool) -> bool:
    """Whether a host that answers to `name`, perhaps a certificate's wildcard, may be `target` or pin it."""
    above = superdomains(target)
    if name.startswith("*."):
        parent = name.removeprefix("*.").lower().removesuffix(".")
        # A wildcard stands for one label (RFC 6125 §6.4.3); the subdomains of what it stands for lie deeper.
        return above[:1] == (parent,) or (include_subdomains and parent in above)
    name = name.lower().removesuffix(".")
    return target == name or (include_subdomains and name in above)


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that means nothing.

    Raises:
        PolicyError: naming the words that do.
    """
    if value not in allowed:
        raise PolicyError(f"{name}={value!r} means nothing: it is one of {', '.join(map(repr, allowed))}")
