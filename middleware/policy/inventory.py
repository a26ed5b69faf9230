"""The inventory of a site: ``dynpin.toml``, its keys and what clients are told of them, in one file.

.. code-block:: toml

    hosts = ["www.example.com"]
    keys = ["tls/fullchain.pem"]                     # the deployed chain, as the server shows it
    backups = ["offline/backup.pub", "offline/next.csr"]
    remember = "dynpin-sent.txt"                     # what was sent last, for processes that start later

    [policy]
    max_age = "30 days"
    report_uri = "https://reports.example.net/r/TOKEN/enforce"

    [ramp]                                           # max-age grows up to that while no reports come in

A rotation names the new chain and the new backups in one edit of this file, so that no moment has only one of them.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast, get_args

from dynpin.errors import PolicyError
from dynpin.pins import Pin

from .keys import KeySource, read_chain, read_pin
from .rules import Built, Mode, Pinned, Terms
from .steps import DEFAULT_STEPS, REPORT_URI, Ramp, Step, header_at

__all__ = ["Inventory", "read_inventory"]

_TOP = ("hosts", "keys", "backups", "pinned", "remember", "policy", "ramp")
_POLICY = ("mode", "max_age", "include_subdomains", "report_uri", "allow_long_max_age")
_RAMP = ("collector", "password_file", "state", "steps")

_DURATION = re.compile(r"(?P<count>[0-9]{1,9})\s*(?P<unit>second|minute|hour|day|week)s?")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a ``dynpin.toml`` says.

    Attributes:
        path: the file.
        hosts: the names that the site answers.
        terms: its keys, backups and policy; paths in it are absolute.
        ramp: the way up to that policy, or None.
        remember: the file that keeps the header that was sent last, or None.
    """

    path: Path
    hosts: tuple[str, ...]
    terms: Terms
    ramp: Ramp | None
    remember: Path | None = None

    @property
    def mode(self) -> Mode:
        """What the policy is to do."""
        return self.terms.mode

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that the header is made from, beside this one."""
        return self.terms.paths if self.ramp is None else (*self.terms.paths, self.ramp.state)

    def build(self) -> Built:
        """Read the files and make the header, as it stands on the ramp where there is one.

        Raises:
            PolicyError: as of :meth:`Terms.build`, or where the position on the ramp cannot be read.
        """
        built = self.terms.build()
        if self.ramp is None or not self.ramp.is_on:
            return built
        from .ramp.state import RampFile  # noqa: PLC0415 - SQLite, for those who have a ramp

        position = RampFile(self.ramp.state, self.ramp.token).read() or self.ramp.begin(0)
        return built._replace(header=header_at(built.header, position.max_age))

    def own_keys(self) -> dict[Pin, str]:
        """The site's own keys, pin to name: of each deployed chain the leaf's, and the backups; the files are read.

        Raises:
            PolicyError: where a file cannot be read or holds no key.
        """
        backups = [read_pin(source, "a backup") for source in self.terms.backups]
        deployed = [read_chain(source, "a key") for source in self.terms.keys]
        return {pin: self._named(label, "backup") for label, pin in backups} | {
            chain.pins[0]: self._named(chain.label, "deployed") for chain in deployed if chain.pins[0] is not None
        }

    def _named(self, label: str, role: str) -> str:
        return f"{os.path.relpath(label, self.path.parent) if Path(label).is_absolute() else label} ({role})"


def read_inventory(path: str | os.PathLike[str]) -> Inventory:
    """Read a ``dynpin.toml``; the paths in it count from its folder. The key files are not read.

    Raises:
        PolicyError: where it cannot be read, or says what is not understood: the message names file, key and mend.
    """
    file = Path(path).absolute()
    try:
        top = _Table(str(file), "", tomllib.loads(file.read_text("utf-8-sig")), _TOP)
    except OSError as error:
        raise PolicyError(f"{file} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or of a name that no file has
        raise PolicyError(f"{file} is no TOML: {error}") from None
    policy = top.table("policy", _POLICY)
    hosts = top.texts("hosts", 'the names that the site answers, such as hosts = ["www.example.com"]')
    terms = Terms(
        keys=top.keys("keys", 'the chain that the server shows, such as keys = ["tls/fullchain.pem"]'),
        backups=top.keys("backups", 'the keys in reserve, such as backups = ["offline/backup.pub"]'),
        pinned=top.pinned(),
        hosts=hosts,
        mode=policy.mode(),
        max_age=policy.duration("max_age"),
        include_subdomains=policy.truth("include_subdomains"),
        report_uri=policy.text("report_uri"),
        allow_long_max_age=policy.truth("allow_long_max_age"),
    )
    ramp = _ramp(top.table("ramp", _RAMP), terms) if "ramp" in top.values else None
    remember = top.text("remember")
    return Inventory(file, hosts, terms, ramp, None if remember is None else file.parent / remember)


def _ramp(table: _Table, terms: Terms) -> Ramp:
    known = REPORT_URI.fullmatch(terms.report_uri or "")
    if known is None:
        raise PolicyError(
            f"{table.file}: [ramp] moves by what clients report, so [policy] report_uri must be that of a dynpin "
            'collector, such as "https://reports.example.net/r/TOKEN/enforce"'
        )
    target = terms.max_age
    target = int(target.total_seconds()) if isinstance(target, timedelta) else target or 0
    collector = table.text("collector") or known["collector"]
    if not re.match("https?://.", collector):
        raise table.wrong("collector", 'the address of the collector, such as "https://reports.example.net"')
    folder = Path(table.file).parent
    password_file = table.text("password_file")
    state = table.text("state") or f"{Path(table.file).stem}-ramp.sqlite"
    return Ramp(
        steps=tuple(step for step in table.steps("steps") if step.max_age is None or step.max_age < target),
        target=target,
        collector=collector.rstrip("/"),
        token=known["token"],
        report_uri=known[0],
        state=folder / state,
        password_file=None if password_file is None else folder / password_file,
        is_on=terms.mode == "enforce",
    )


class _Table:
    """One table of the file, whose values are taken by name and refused by file, name and value."""

    def __init__(self, file: str, name: str, values: Mapping[str, object], known: tuple[str, ...]) -> None:
        self.file, self.name, self.values = file, name, values
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(key.replace("-", "_").lower(), known, n=1)
                meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
                raise self.refusal(key, f"is not known here; {meant}")

    def refusal(self, key: str, why: str) -> PolicyError:
        table = f"[{self.name}] " if self.name else ""
        return PolicyError(f"{self.file}: {table}{key} {why}")

    def wrong(self, key: str, wanted: str) -> PolicyError:
        return self.refusal(key, f"= {self.values[key]!r} is not understood: give {wanted}")

    def table(self, key: str, known: tuple[str, ...]) -> _Table:
        found = self.values.get(key, {})
        if not isinstance(found, dict):
            raise self.wrong(key, f"a table, [{key}]")
        return _Table(self.file, key, cast("dict[str, object]", found), known)

    def text(self, key: str) -> str | None:
        found = self.values.get(key)
        if found is None or isinstance(found, str):
            return found
        raise self.wrong(key, 'a text in "quotes"')

    def truth(self, key: str) -> bool:
        found = self.values.get(key, False)
        if isinstance(found, bool):
            return found
        raise self.wrong(key, "true or false, without quotes")

    def duration(self, key: str) -> timedelta | int | None:
        found = self.values.get(key)
        if found is None or (isinstance(found, int) and not isinstance(found, bool)):
            return found
        match = _DURATION.fullmatch(found.strip().lower()) if isinstance(found, str) else None
        if match is None:
            raise self.wrong(key, 'seconds, or a text such as "30 days", "12 hours" or "90 minutes"')
        try:
            return timedelta(**{match["unit"] + "s": int(match["count"])})
        except OverflowError:
            raise self.wrong(key, "a time that a calendar holds") from None

    def seconds(self, key: str) -> int:
        found = self.duration(key)
        seconds = int(found.total_seconds()) if isinstance(found, timedelta) else found or 0
        if seconds <= 0:
            raise self.wrong(key, 'a time such as "7 days"') if key in self.values else self.refusal(key, "is missing")
        return seconds

    def steps(self, key: str) -> tuple[Step, ...]:
        """The steps of a ramp: ``{ send = "1 hour", for = "2 days" }``, upwards."""
        if key not in self.values:
            return DEFAULT_STEPS
        steps: list[Step] = []
        wanted = 'tables such as { send = "report-only", for = "7 days" }, { send = "1 hour", for = "2 days" }, upwards'
        for entry in self._entries(key, wanted):
            if not isinstance(entry, dict):
                raise self.wrong(key, wanted)
            table = _Table(self.file, f"{self.name}.{key}", cast("dict[str, object]", entry), ("send", "for"))
            max_age = None if table.values.get("send") == "report-only" else table.seconds("send")
            if steps and (max_age is None or max_age <= (steps[-1].max_age or 0)):
                raise self.wrong(key, wanted)
            steps.append(Step(max_age, table.seconds("for")))
        return tuple(steps)

    def mode(self) -> Mode:
        found = self.values.get("mode", "enforce")
        for mode in get_args(Mode):
            if found == mode:
                return cast("Mode", mode)
        raise self.wrong("mode", " or ".join(f'"{mode}"' for mode in get_args(Mode)))

    def pinned(self) -> Pinned:
        found = self.values.get("pinned", "leaf")
        if found in ("leaf", "chain"):
            return cast("Pinned", found)
        numbers = cast("list[object]", found) if isinstance(found, list) else [found]
        chosen = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
        if len(chosen) != len(numbers):
            raise self.wrong("pinned", '"leaf", "chain", or numbers of certificates, counted from the leaf, 0')
        return chosen

    def texts(self, key: str, what: str) -> tuple[str, ...]:
        entries = self._entries(key, what)
        for entry in entries:
            if not isinstance(entry, str):
                raise self.wrong(key, what)
        return cast("tuple[str, ...]", entries)

    def keys(self, key: str, what: str) -> tuple[KeySource, ...]:
        return tuple(self._key(key, entry, what) for entry in self._entries(key, what))

    def _entries(self, key: str, what: str) -> tuple[object, ...]:
        if key not in self.values:
            raise self.refusal(key, f"is missing: {what}")
        found = self.values[key]
        return tuple(cast("list[object]", found)) if isinstance(found, list) else (found,)

    def _key(self, key: str, entry: object, what: str) -> KeySource:
        """One key: the path of its file, or its pin as ``{ pin = "…" }``."""
        if isinstance(entry, str) and "-----BEGIN " not in entry:
            path = Path(self.file).parent / entry
            if key == "backups" and _holds_private_key(path):
                raise self.refusal(
                    key,
                    f"names {path}, a private key: whoever breaks into this server has it too, and it is no reserve. "
                    "Keep it offline, and name its public half (openssl pkey -in KEY -pubout) or its CSR",
                )
            return path
        if isinstance(entry, dict):
            members = cast("dict[str, object]", entry)
            pin = members.get("pin")
            if isinstance(pin, str) and len(members) == 1:
                try:
                    return Pin.from_base64(pin)
                except ValueError as error:
                    raise self.refusal(key, f"has a pin that is none: {error}") from None
        raise self.wrong(key, f'{what}; a bare pin stands as {{ pin = "base64 of 32 bytes" }}')


def _holds_private_key(path: Path) -> bool:
    try:
        return b"PRIVATE KEY-----" in path.read_bytes()
    except (OSError, ValueError):
        return False  # whether it can be read at all is found out, and told, by those who need it
