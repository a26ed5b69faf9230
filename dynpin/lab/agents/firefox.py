"""A model of Firefox at the end of HPKP (68 to 71). Its rules were read in its source (dynpin.lab.claims)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynpin.clientstore import Peer
from dynpin.clientstore.store import LookUp
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, applicable, canonical_host, superdomains
from dynpin.lab.agents.browser import BrowserAgent, BrowserStore, loosely
from dynpin.lab.agents.library import Fields
from dynpin.noting import Noting
from dynpin.pins import Pin

__all__ = ["MAX_ENTRIES", "FirefoxAgent", "FirefoxStore", "read_as_firefox"]

# The table of site security state, which held HSTS too; a full one evicts an entry with the lowest score
# (DataStorage: sMaxDataEntries, MaybeEvictOneEntry), and is written after a while (sDataStorageDefaultTimerDelay).
MAX_ENTRIES = 1_024
_WRITTEN_AFTER = 300.0
_FOURTEEN_WEEKS = 98 * 86_400.0  # genHPKPStaticPins.js, PINNING_MINIMUM_REQUIRED_MAX_AGE
_DAY = 86_400
_UINT64 = 2**64
_PIN_TEXT = 44


def read_as_firefox(value: str, *, report_only: bool = False) -> PublicKeyPins:
    """Parse a field as Firefox does (nsSiteSecurityService, ParseSSSHeaders).

    It allows white space around "=". A pin with an unknown algorithm is an unknown directive, and unknown directives
    may be repeated. The value of report-uri is not read. A backslash stays in a quoted-string. max-age has 64 bits.

    Raises:
        InvalidHeader: if Firefox ignores the field.
    """
    texts: list[str] = []
    for directive, text in loosely(value):
        match directive.name:
            case "pin-sha256":
                texts.append(text.replace("\\", "\\\\"))
            case "max-age" if _overflows(directive.value or ""):
                texts.append("max-age=more-than-64-bits")
            case "max-age":
                texts.append(text.replace("\\", "\\\\"))
            case "includesubdomains":
                texts.append(directive.name if directive.value == "" else text)
            case "report-uri":
                texts.append("report-uri-unread")  # a repeated report-uri is still an error
            case _:
                pass
    return PublicKeyPins.parse("; ".join(texts), report_only=report_only)


def _overflows(digits: str) -> bool:
    significant = digits.lstrip("0")
    return significant.isdecimal() and (len(significant) > len(str(_UINT64)) or int(significant) >= _UINT64)


@dataclass(slots=True)
class _Score:
    """On how many days an entry was used after the first day, and the last of these, in days since the epoch."""

    days: int
    last: int


class FirefoxStore(BrowserStore):
    """A table of 1024 entries in memory, and a text file that is written five minutes after a change, or at the end.

    An entry's score grows once a day, when the entry is used (DataStorage::Entry::UpdateScore). A full table evicts an
    entry with the lowest score.

    Args:
        path: the file, with Firefox's format of one line for each entry. None for private windows: their table is
            cleared when the last of them closes (DataStorage::Observe).
        clock: returns seconds since the epoch, UTC.
    """

    read = staticmethod(read_as_firefox)
    static_lapses = _FOURTEEN_WEEKS

    def __init__(self, path: Path | None, *, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._file = path
        self._scores: dict[str, _Score] = {}
        self._changed_at: float | None = None
        self._load()

    def applies(self, name: str, now: float) -> KnownPinnedHost | None:
        """The first name from the host upwards with pins that cover it. Noted pins come before built-in pins.

        FindPinningInformation, in PublicKeyPinningService.cpp.
        """
        for each in (name, *superdomains(name)):
            for entries in (self.entries, self.built_in):
                found = entries.get(each)
                if found is not None and applicable([found], name, now) is not None:
                    return found
        return None

    def note(
        self, host: str, value: str | Sequence[str], chain: Sequence[Pin], certificates: Sequence[bytes] = ()
    ) -> Noting:
        """Like :meth:`BrowserStore.note`. If the table is full, a new entry evicts an old one."""
        noting, name = super().note(host, value, chain, certificates), canonical_host(host)
        match noting.outcome:
            case "noted":
                if len(self._scores) >= MAX_ENTRIES:
                    least = min(score.days for score in self._scores.values())
                    self.forget(self.victim([host for host, score in self._scores.items() if score.days == least]))
                self._scores[name] = _Score(0, self._today())
                self._change()
            case "updated":
                self._touch(name)
                self._change()
            case "removed":
                self._scores.pop(name, None)
                self._change()
            case "ignored":
                pass
        return noting

    def look_up(self, name: str) -> LookUp:
        """Like :meth:`BrowserStore.look_up`. The score of the entry that applies grows on each day of use."""
        found = super().look_up(name)
        if found.known_host is not None:
            self._touch(found.known_host.host)
        return found

    def victim(self, lowest: Sequence[str]) -> str:
        """The host to evict, of those with the lowest score: the oldest. Firefox does not say which ("not specified").

        No story may depend on it.
        """
        return lowest[0]

    def forget(self, host: str) -> bool:
        """Like :meth:`BrowserStore.forget`."""
        self._scores.pop(canonical_host(host), None)
        self._change()
        return super().forget(host)

    def close(self) -> None:
        """End normally, and write changes."""
        self._write()

    def crash(self) -> None:
        """End without writing. What is in the file remains."""
        if self._changed_at is not None and self.clock() - self._changed_at >= _WRITTEN_AFTER:
            self._write()

    def _today(self) -> int:
        return int(self.clock()) // _DAY

    def _touch(self, name: str) -> None:
        score, today = self._scores.get(name), self._today()
        if score is not None and today > score.last:
            score.days, score.last = score.days + 1, today
            self._change()

    def _change(self) -> None:
        now = self.clock()
        if self._changed_at is not None and now - self._changed_at >= _WRITTEN_AFTER:
            self._write()
        if self._changed_at is None:
            self._changed_at = now

    def _write(self) -> None:
        if self._changed_at is None or self._file is None:
            return
        lines = [
            f"{entry.host}:HPKP\t{self._scores[entry.host].days}\t{self._scores[entry.host].last}\t"
            f"{int((entry.expires_at or 0) * 1000)},1,{int(entry.include_subdomains)},{''.join(map(str, entry.pins))}\n"
            for entry in self.entries.values()
            if entry.host in self._scores
        ]
        self._file.write_text("".join(lines))
        self._changed_at = None

    def _load(self) -> None:
        if self._file is None or not self._file.exists():
            return
        now = self.clock()
        for line in self._file.read_text().splitlines():
            key, days, last, value = line.split("\t")
            expires, _, subdomains, pins = value.split(",")
            host = key.removesuffix(":HPKP")
            self._scores[host] = _Score(int(days), int(last))
            texts = [pins[at : at + _PIN_TEXT] for at in range(0, len(pins), _PIN_TEXT)]
            found = tuple(map(Pin.from_base64, texts))
            self.entries[host] = KnownPinnedHost(host, found, subdomains == "1", None, now, int(expires) / 1000)


class FirefoxAgent(BrowserAgent[FirefoxStore]):
    """Firefox with its table. It sends no reports, and knows no Public-Key-Pins-Report-Only."""

    def open_store(self) -> FirefoxStore:
        """The table, from its file in the machine's folder. For private windows it has no file."""
        private = self.machine.settings.get("private", False)
        file = None if private else self.machine.folder / "SiteSecurityServiceState.txt"
        return FirefoxStore(file, clock=self.machine.clock)

    def note(self, host: str, peer: Peer, fields: Fields) -> Noting:
        """Like any browser's, but a chain that ends in a root of the user's notes nothing (ProcessPKPHeader)."""
        if peer.validated and peer.validated[-1] not in self.machine.public_roots:
            return Noting("ignored", f"the chain of {host} ends in a root that is not built in", "2.5")
        return super().note(host, peer, fields)
