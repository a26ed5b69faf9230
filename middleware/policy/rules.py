"""The checks that refuse a harmful inventory (RFC 7469 §2.1, §2.5, §4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from dynpin.durations import duration
from dynpin.errors import InvalidHost, PolicyError
from dynpin.hosts import canonical_host, is_ip_literal, superdomains
from dynpin.pins import Pin

from .chains import chain_faults, in_chain, is_nameless, unproven
from .host_names import is_address
from .keys import Chain, Key
from .paths import certain_pins

__all__ = [
    "LONGEST_MAX_AGE",
    "Mode",
    "OptionNames",
    "Pinned",
    "backup_pins",
    "check_chains",
    "check_flag",
    "check_report_uri",
    "check_text",
    "max_age_of",
    "pins_of",
]

Mode = Literal["enforce", "report-only", "unpin"]
Pinned = Literal["leaf", "chain"] | int | Sequence[int]

# RFC 7469 §4.1: on the order of 60 days.
LONGEST_MAX_AGE = 60 * 86_400

_MAKE_A_BACKUP = "Make a key that is not deployed, and keep its private half offline:  dynpin keys new HOST"


@dataclass(frozen=True, slots=True)
class OptionNames:
    """The names of options in messages: TOML for a ``dynpin.toml``, Python for the keywords of a call.

    Attributes:
        policy_table: the options in the table [policy] of the ``dynpin.toml``; the others come before all tables. None
            if the policy was made in code.
    """

    policy_table: frozenset[str] | None = None

    @property
    def in_toml(self) -> bool:
        """Whether a ``dynpin.toml`` has the options."""
        return self.policy_table is not None

    def name(self, option: str) -> str:
        """The name of an option: ``[policy] max_age``, or ``max_age=``."""
        if self.policy_table is None:
            return f"{option}="
        return f"[policy] {option}" if option in self.policy_table else option

    def setting(self, option: str, toml: str, python: str | None = None) -> str:
        """An option with a value, as TOML or Python: ``max_age = "30 days"``, or ``max_age=timedelta(days=30)``."""
        return f"{self.name(option)} = {toml}" if self.in_toml else f"{option}={python or toml}"


def max_age_of(max_age: object, mode: Mode, options: OptionNames, *, allow_long: bool) -> int:
    """The max-age of the header, in seconds (§2.1.2).

    Raises:
        PolicyError: if it is missing, not a number of seconds, or too long.
    """
    if mode == "unpin":
        return 0
    if max_age is None:
        # §2.1.2: report-only has no max-age.
        if mode == "report-only":
            return 0
        month = options.setting("max_age", '"30 days"', "timedelta(days=30)")
        raise PolicyError(
            f"{options.name('max_age')} is missing: it says how long clients refuse every other key. Begin with an "
            f"hour, and go up to {month} when all is well"
        )
    try:
        age = timedelta(seconds=max_age) if isinstance(max_age, int) and not isinstance(max_age, bool) else max_age
    except OverflowError:
        age = timedelta(days=999_999_999)
    if not isinstance(age, timedelta) or age.microseconds or age < timedelta():
        raise PolicyError(
            f"{options.setting('max_age', repr(max_age))} is not a whole number of seconds, at least 1 (RFC 7469 "
            "§2.1.2): give "
            + ('a text such as "30 days", or seconds' if options.in_toml else "a timedelta, or an int of seconds")
            + " (not milliseconds)"
        )
    seconds = int(age.total_seconds())
    if not seconds and mode == "enforce":
        unpin = options.setting("mode", '"unpin"', "'unpin'")
        raise PolicyError(
            f"{options.setting('max_age', '0')} makes clients forget their pins. If you want that, write "
            f"{unpin}, which sends it in a form that every client accepts"
        )
    if seconds > LONGEST_MAX_AGE and not allow_long:
        longest = LONGEST_MAX_AGE // 86_400
        raise PolicyError(
            f"{options.name('max_age')} is {duration(seconds)}: if you lose the keys, users are locked out for that "
            f"long, and clients cap it at about {longest} days (RFC 7469 §4.1). Use {longest} days or fewer, or write "
            + options.setting("allow_long_max_age", "true", "True")
        )
    return seconds


def pins_of(chain: Chain, pinned: Pinned, options: OptionNames, roots: Sequence[Path]) -> list[Pin]:
    """The pins of one chain for the header. At least one of them is in the chain that clients validate.

    Raises:
        PolicyError: if none is, or there is no certificate with a number.
    """
    shown = options.setting("pinned", repr(pinned).replace("'", '"') if options.in_toml else repr(pinned))
    if pinned == "chain":
        return [*chain.pinnable]
    if isinstance(pinned, str):
        one_of(options.name("pinned"), pinned, ("leaf", "chain"))
        numbers: Sequence[int] = (0,)
    else:
        numbers = _numbers(pinned, shown)
    found: list[Pin] = []
    for number in numbers:
        pin = chain.pins[number] if 0 <= number < len(chain.pins) else None
        if pin is None:
            raise PolicyError(
                f"{shown}: {chain.label} has no certificate {number} that can be pinned; it has {len(chain.pins)}, "
                "counted from 0, the leaf"
            )
        found.append(pin)
    if found and set(found).isdisjoint(certain_pins(chain, roots)):
        raise PolicyError(
            f"{shown}: none of these certificates of {chain.label} is in every chain that clients validate: it issued "
            "nothing there, or is above a root. Clients then ignore the header (RFC 7469 §2.5). Pin the leaf"
        )
    return found


def _numbers(pinned: object, shown: str) -> Sequence[int]:
    numbers = cast("Sequence[object]", pinned if isinstance(pinned, list | tuple | range) else (pinned,))
    found = [each for each in numbers if isinstance(each, int) and not isinstance(each, bool)]
    if len(found) < len(numbers):
        raise PolicyError(f'{shown} is not understood: give "leaf", "chain", or numbers counted from 0, the leaf')
    return found


def check_chains(chains: Sequence[Chain], hosts: Sequence[str], now: float, options: OptionNames) -> list[str]:
    """The warnings about the deployed chains.

    Raises:
        PolicyError: if clients would refuse one of them, or could pin nothing: they only pin names (§2.3.3).
    """
    if hosts and all(map(is_address, hosts)):
        raise PolicyError(
            f"{options.name('hosts')} has only IP addresses, but clients pin only names (RFC 7469 §2.3.3). Add the "
            "name that clients use for this server"
        )
    warnings: list[str] = []
    for chain in chains:
        for fault in chain_faults(chain, hosts, now=now, beside=[each for each in chains if each is not chain]):
            if fault.refused:
                raise PolicyError(fault.message)
            warnings.append(fault.message)
    nameless = next((chain for chain in chains if is_nameless(chain)), None)
    if not hosts and nameless is not None:
        raise PolicyError(
            f"the certificate of {nameless.label} has no DNS name in subjectAltName, so clients refuse it or pin "
            "nothing: they pin only names (RFC 7469 §2.3.3). Deploy a certificate for the server's name"
        )
    return warnings


def backup_pins(
    chains: Sequence[Chain], backups: Sequence[Key], roots: Sequence[Path], options: OptionNames
) -> tuple[list[Pin], list[str]]:
    """The Backup Pins, and the warnings about them (RFC 7469 §2.5, §4.3). At least one is in no validated chain.

    If a backup key is deployed, as just after an emergency, and there is another backup key, this is a warning.

    Raises:
        PolicyError: if there is no Backup Pin, or one is the key of an issuer of a deployed chain.
    """
    leaves = {chain.pins[0] for chain in chains}
    found = [(backup, in_chain(backup, chains, roots)) for backup in backups]
    if not backups:
        raise PolicyError(
            "there is no Backup Pin: clients ignore a header without one, and if you lose the only key, every user is "
            f"locked out (RFC 7469 §2.5, §4.3). {_MAKE_A_BACKUP}. Name its public half in {options.name('backups')}"
        )
    if all(why for _, why in found):
        shown = "; ".join(why for _, why in found if why)
        silence = "on_invalid='silence' starts the server without a header until then"
        raise PolicyError(
            f"all Backup Pins are in the deployed chain: {shown}. Clients ignore such a header (RFC 7469 §2.5). If you "
            f"have just deployed the backup key, you need the next one; {silence}. {_MAKE_A_BACKUP}"
        )
    for backup, why in found:
        if why is not None and backup.pin not in leaves:
            raise PolicyError(
                f"{options.name('backups')}: {why}. A key of the chain is not a backup key (RFC 7469 §4.3): remove it. "
                "To pin the keys of the issuers too, write " + options.setting("pinned", '"chain"', "'chain'")
            )
    warnings = [
        f"{why}, so it is no longer a backup key: remove it from {options.name('backups')}" for _, why in found if why
    ]
    doubt = unproven([backup for backup, why in found if why is None], chains, roots)
    return [backup.pin for backup in backups], warnings if doubt is None else [*warnings, doubt]


def check_report_uri(
    uri: str, chains: Sequence[Chain], hosts: Sequence[str], options: OptionNames, *, include_subdomains: bool
) -> None:
    """RFC 7469 §2.1.4: if the pins of a host fail, a report to the same host fails too.

    Raises:
        PolicyError: if the endpoint is on the pinned host, or this cannot be found out.
    """
    try:
        target = canonical_host(urlsplit(uri).hostname or "")
        # Wildcards too: canonical_host accepts "*" as a label.
        named = [canonical_host(name) for name in hosts]
    except InvalidHost as error:
        raise PolicyError(f"{options.name('report_uri')} or {options.name('hosts')}: {error}") from None
    if is_ip_literal(target):  # §2.3.3: never pinned
        return
    told = [name for chain in chains for name in chain.names or ()]
    if not named and all(chain.names is None for chain in chains):
        raise PolicyError(
            f"dynpin cannot find out whether {uri} is on the pinned host: no certificate in {options.name('keys')} "
            "has a DNS name. Name the hosts of this server: "
            + options.setting("hosts", '["www.example.com"]', "['www.example.com']")
        )
    for name in named or told:
        if _pins_cover(name, target, include_subdomains):
            source = options.name("hosts") if named else "the deployed certificate"
            raise PolicyError(
                f"{options.name('report_uri')} {uri} is on the pinned host {name} (of {source}): if its pins fail, "
                "reports to it fail too, and no client sends them (RFC 7469 §2.1.4). Use a host that these pins do "
                "not cover"
                + ("; includeSubDomains covers every subdomain" if include_subdomains else "")
                + ("" if named else f", or name the hosts of this server in {options.name('hosts')}")
            )


def _pins_cover(name: str, target: str, include_subdomains: bool) -> bool:
    """Whether a host with this name, which may be a wildcard, can be `target` or can pin it."""
    above = superdomains(target)
    if name.startswith("*."):
        parent = name.removeprefix("*.").lower().removesuffix(".")
        # A wildcard matches one label (RFC 6125 §6.4.3). Subdomains of the matching hosts have more labels.
        return above[:1] == (parent,) or (include_subdomains and parent in above)
    name = name.lower().removesuffix(".")
    return target == name or (include_subdomains and name in above)


def check_mode(mode: str, report_uri: str | None, options: OptionNames) -> None:
    """Refuse an unknown mode, and report-only without a report-uri (§2.1.4, §2.3.2).

    Raises:
        PolicyError: the message names the modes, or the missing endpoint.
    """
    one_of(options.name("mode"), mode, get_args(Mode))
    if mode == "report-only" and report_uri is None:
        setting = options.setting("mode", '"report-only"', "'report-only'")
        raise PolicyError(
            f"{setting} without "
            f"{options.name('report_uri')} does nothing: clients note no pins, and cannot report a violation (RFC 7469 "
            "§2.1.4, §2.3.2). Name the endpoint for the reports"
        )


def check_flag(name: str, value: object) -> None:
    """Refuse a value that is not True or False.

    Raises:
        PolicyError: the message names the option.
    """
    if not isinstance(value, bool):
        raise PolicyError(f"{name}={value!r} is neither True nor False")


def check_text(name: str, value: object) -> None:
    """Refuse a value that is not a text or None.

    Raises:
        PolicyError: the message names the option.
    """
    if not isinstance(value, str | None):
        raise PolicyError(f"{name}={value!r} is not a text: give a str")


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse an unknown value.

    Raises:
        PolicyError: the message names the known values.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise PolicyError(f"{name} {value!r} is not known; use one of {', '.join(map(repr, allowed))}")
