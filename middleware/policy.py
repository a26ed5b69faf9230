"""Policy: the header of a site, built from its keys and refused where it would harm (RFC 7469 §2.2, §4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, get_args
from urllib.parse import urlsplit

from dynpin.errors import InvalidHeader, InvalidHost, PolicyError
from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host, superdomains
from dynpin.middleware.keyfiles import KeySource, path_of, read_chain, read_pin, several
from dynpin.middleware.watching import Signature, signature, watch
from dynpin.pins import Pin

__all__ = ["Mode", "OnInvalid", "PinnedPart", "Policy"]

logger = logging.getLogger("dynpin.middleware")

Mode = Literal["enforce", "report-only", "unpin"]
OnInvalid = Literal["raise", "silence"]
PinnedPart = Literal["leaf", "chain"]

# RFC 7469 §4.1; clients cap at it, dynpin's among them.
_LONGEST_MAX_AGE = 60 * 86_400


class Policy:
    """What a site tells its clients to pin, checked when it is built and again whenever a file of it changes.

    Args:
        keys: the deployed chain, one file or several (an RSA and an EC certificate side by side); the leaf of each is
            pinned. A path, PEM or DER in memory, or a :class:`~dynpin.Pin`.
        backups: keys that are deployed nowhere: public keys, CSRs, certificates; their private halves stay offline.
        max_age: a timedelta, or whole seconds. Counted by each client from its last visit (§2.1.2).
        include_subdomains: whether every subdomain is pinned to these keys too (§2.1.3).
        report_uri: an http or https URI that takes violation reports; never on the pinned host itself (§2.1.4).
        mode: ``"enforce"``, ``"report-only"``, or ``"unpin"``, which sends max-age=0 with the pins.
        hosts: the names that the site is served under; without it, those of the deployed certificates.
        pinned: ``"leaf"``, or ``"chain"`` to pin every certificate of the deployed chain.
        allow_long_max_age: permit more than 60 days (§4.1).
        on_invalid: ``"raise"``, or ``"silence"`` to start without a header: for the emergency in which the backup is
            deployed and no new one is made yet. What clients noted holds either way.

    Raises:
        PolicyError: where the header would lock users out, protect nobody, or could not be sent.
    """

    def __init__(
        self,
        keys: KeySource | Sequence[KeySource],
        backups: KeySource | Sequence[KeySource] = (),
        *,
        max_age: timedelta | int,
        include_subdomains: bool = False,
        report_uri: str | None = None,
        mode: Mode = "enforce",
        hosts: Sequence[str] = (),
        pinned: PinnedPart = "leaf",
        allow_long_max_age: bool = False,
        on_invalid: OnInvalid = "raise",
    ) -> None:
        _one_of("mode", mode, get_args(Mode))
        _one_of("pinned", pinned, get_args(PinnedPart))
        _one_of("on_invalid", on_invalid, get_args(OnInvalid))
        self.keys, self.backups = several(keys), several(backups)
        self.max_age = _seconds(max_age, allow_long_max_age)
        self.include_subdomains = include_subdomains
        self.report_uri = report_uri
        self.mode: Mode = mode
        self.hosts = tuple(hosts)
        self.pinned: PinnedPart = pinned
        if mode == "report-only" and report_uri is None:
            raise PolicyError(
                "a report-only policy without report_uri tells nobody anything; give one (RFC 7469 §2.3.2)"
            )
        self._header: PublicKeyPins | None = None
        self._field: tuple[bytes, bytes] | None = None
        # Taken before the files are read: what changes while they are read is seen at the next look.
        self._seen = self._signature()
        try:
            self._take(self._build())
        except PolicyError as error:
            if on_invalid == "raise":
                raise
            logger.error("no Public-Key-Pins header is sent: %s", error)  # noqa: TRY400 - the message says it all
        watch(self)

    @property
    def header(self) -> PublicKeyPins | None:
        """The header that is sent now; None where none is (``on_invalid="silence"``)."""
        return self._header

    @property
    def field(self) -> tuple[bytes, bytes] | None:
        """The header as a field, name and value, ready to send; None where none is."""
        return self._field

    def refresh(self) -> bool:
        """Look at the files again; True if the header has changed.

        Called by a watcher of its own, so that no request reads a file. A change that would make a bad header keeps
        the last good one and is logged as an error, once.
        """
        now = self._signature()
        if now == self._seen:
            return False
        self._seen = now
        try:
            header = self._build()
        except PolicyError as error:
            kept = "the last good header stays" if self._header else "still no header is sent"
            logger.error("the changed key files would make a bad header, so %s: %s", kept, error)  # noqa: TRY400
            return False
        changed = header != self._header
        self._take(header)
        if changed:
            logger.info("the Public-Key-Pins header has changed: %s", header)
        return changed

    def _signature(self) -> Signature:
        return signature(path for source in (*self.keys, *self.backups) if (path := path_of(source)) is not None)

    def _take(self, header: PublicKeyPins) -> None:
        self._header = header
        self._field = (header.name.lower().encode("ascii"), str(header).encode("latin-1"))

    def _build(self) -> PublicKeyPins:
        chains = [read_chain(source) for source in self.keys]
        backups = [read_pin(source) for source in self.backups]
        deployed = {pin for chain in chains for pin in chain.pins}
        if not chains:
            raise PolicyError("no deployed key is given: name the chain that the server shows as keys=")
        pins = [pin for chain in chains for pin in (chain.pins if self.pinned == "chain" else chain.pins[:1])]
        # RFC 7469 §2.5: clients note nothing without a pin outside the chain, and §4.3 tells what its lack costs.
        offline = [pin for pin in backups if pin not in deployed]
        if not offline and self.mode != "unpin":
            raise PolicyError(_no_backup(backups))
        self._check_report_host([name for chain in chains for name in chain.names])
        try:
            return PublicKeyPins(
                pins=(*pins, *offline),
                max_age=0 if self.mode == "unpin" else self.max_age,
                include_subdomains=self.include_subdomains,
                report_uri=self.report_uri,
                report_only=self.mode == "report-only",
            )
        except InvalidHeader as error:
            raise PolicyError(f"the policy makes no header: {error}") from None

    def _check_report_host(self, certified: Sequence[str]) -> None:
        """RFC 7469 §2.1.4: a report about a host cannot be delivered to it while its pins fail."""
        if self.report_uri is None:
            return
        try:
            target = canonical_host(urlsplit(self.report_uri).hostname or "")
        except (InvalidHost, ValueError):
            raise PolicyError(f"report_uri {self.report_uri!r} is no absolute http or https URI with a host") from None
        for name in self.hosts or certified:
            if _covers(name, target, self.include_subdomains):
                raise PolicyError(
                    f"report_uri {self.report_uri} is on {name}, which is pinned itself: when its pins fail, no report "
                    "arrives; send reports to a host that these pins do not cover (RFC 7469 §2.1.4)"
                )


def _covers(name: str, target: str, include_subdomains: bool) -> bool:
    """Whether a pinned name, which may be a certificate's wildcard, covers the target."""
    wildcard = name.startswith("*.")
    try:
        pinned = canonical_host(name.removeprefix("*."))
    except InvalidHost:
        return False
    above = superdomains(target)
    if wildcard:
        return above[:1] == (pinned,) or (include_subdomains and pinned in above)
    return target == pinned or (include_subdomains and pinned in above)


def _no_backup(backups: Sequence[Pin]) -> str:
    why = (
        "every backup is in the deployed chain already, so there is no Backup Pin"
        if backups
        else "there is no Backup Pin"
    )
    return (
        f"{why}: clients would ignore the header, and the loss of one key would lock everybody out (RFC 7469 §2.5, "
        "§4.3); make a key, keep it offline, and name its public half or CSR in backups="
    )


def _seconds(max_age: timedelta | int, allow_long: bool) -> int:
    seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    if isinstance(max_age, bool) or seconds != int(seconds) or seconds < 0:
        raise PolicyError(f"max_age={max_age!r} is no whole number of seconds; give a timedelta or seconds")
    if seconds > _LONGEST_MAX_AGE and not allow_long:
        raise PolicyError(
            f"max_age is {int(seconds)} seconds, more than the 60 days that clients keep at most: a mistake would lock "
            "users out for that long (RFC 7469 §4.1); lower it, or say allow_long_max_age=True"
        )
    return int(seconds)


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise PolicyError(f"{name}={value!r} is none of {', '.join(map(repr, allowed))}")
