"""A model of Chromium at the end of HPKP (65 to 71). Its rules were read in its source (dynpin.lab.claims)."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from dynpin.clientstore import Reporter
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.agents.agent import Machine, Sent
from dynpin.lab.agents.browser import BrowserAgent, BrowserStore, around, loosely, nearest
from dynpin.lab.agents.library import one_line
from dynpin.lab.network import loopback_names
from dynpin.noting import Noting, note
from dynpin.pins import Pin
from dynpin.report import Report

__all__ = ["ChromiumAgent", "ChromiumStore", "read_as_chromium"]

# The same report is sent once an hour. Chromium remembers the last fifty reports (kTimeToRememberReportsMins,
# kMaxReportCacheEntries).
_REMEMBERED_FOR, _REMEMBERED = 3_600.0, 50
_TEN_WEEKS = 70 * 86_400.0  # IsBuildTimely


def read_as_chromium(value: str, *, report_only: bool = False) -> PublicKeyPins:
    """Parse a field as Chromium does (net/http/http_security_headers.cc, ParseHPKPHeaderImpl).

    It allows white space around "=", single quotes and DEL. Of repeated directives the last one wins. includeSubDomains
    may have a value. A pin with an unknown algorithm is an unknown directive. max-age is read in report-only too.

    Raises:
        InvalidHeader: if Chromium ignores the field.
    """
    pins: list[str] = []
    last: dict[str, str] = {}
    for directive, text in loosely(value.replace("\x7f", "%7F"), single_quotes=True):
        match directive.name:
            case "pin-sha256":
                pins.append(text)
            case "includesubdomains":
                last[directive.name] = "includeSubDomains"
            case "max-age" | "report-uri":
                last[directive.name] = text
            case _:
                pass
    if report_only and "max-age" in last:
        PublicKeyPins.parse(last["max-age"])
    return PublicKeyPins.parse("; ".join([*pins, *last.values()]), report_only=report_only)


class ChromiumStore(BrowserStore):
    """Known Pinned Hosts with no limit on their number, 60 days at most, and their JSON file.

    Chromium writes the file within seconds of a change. The clocks of stories stand still for longer than that, so the
    model writes it at the end, even after a crash.

    Args:
        path: the file; None for Incognito, which begins empty and leaves nothing (CreateNetworkContextParams).
        clock: returns seconds since the epoch, UTC.
    """

    read = staticmethod(read_as_chromium)
    static_lapses = _TEN_WEEKS

    def __init__(self, path: Path | None, *, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._file = path
        if path is not None and path.exists():
            for told in json.loads(path.read_text()):
                entry = KnownPinnedHost(**told | {"pins": tuple(map(Pin.from_base64, told["pins"]))})
                self.entries[entry.host] = entry

    def ignores(self, name: str, header: PublicKeyPins, chain: Sequence[Pin]) -> Noting | None:
        """Treat max-age=0 like any header: it needs a pin in the chain, and one that is not.

        ParseHPKPHeader asks IsPinListValid before AddHPKPHeader looks at max-age.
        """
        if header.max_age != 0:
            return None
        noted = note(name, None, replace(header, max_age=1), chain, self.clock())
        return noted if noted.outcome == "ignored" else None

    def applies(self, name: str, now: float) -> KnownPinnedHost | None:
        """Noted pins come before built-in pins (CheckPublicKeyPinsImpl)."""
        return self.noted(name, now) or nearest(around(self.built_in, name), name, now)

    def noted(self, name: str, now: float) -> KnownPinnedHost | None:
        """The entry of the nearest name. If it has expired, it is deleted (GetDynamicPKPState)."""
        for entry in around(self.entries, name):
            if entry.is_expired(now):
                del self.entries[entry.host]
        return nearest(around(self.entries, name), name, now)

    def close(self) -> None:
        """Write the file."""
        if self._file is None:
            return
        told = [
            {
                "host": entry.host,
                "pins": [str(pin) for pin in entry.pins],
                "include_subdomains": entry.include_subdomains,
                "report_uri": entry.report_uri,
                "noted_at": entry.noted_at,
                "expires_at": entry.expires_at,
                "source": entry.source,
            }
            for entry in self.entries.values()
        ]
        self._file.write_text(json.dumps(told))


class ChromiumAgent(BrowserAgent[ChromiumStore]):
    """Chromium with its pins and reports. A report is sent at once or never (CheckPinsAndMaybeSendReport)."""

    def __init__(self, machine: Machine) -> None:
        self._reports = _Reports(machine.clock)
        super().__init__(machine)

    def open_store(self) -> ChromiumStore:
        """A file in the machine's folder; none in Incognito."""
        private = self.machine.settings.get("private", False)
        return ChromiumStore(None if private else self.machine.folder / "TransportSecurity", clock=self.machine.clock)

    @property
    def reporter(self) -> Reporter:
        """The object that takes the reports of its handshakes."""
        return self._reports

    def report_at_once(self) -> list[Sent]:
        """Like :meth:`UserAgent.report_at_once`, with the reports about these requests."""
        sent: list[Sent] = []
        with loopback_names(self.machine.network):
            while self._reports.waiting:
                report_uri, body = self._reports.waiting.popleft()
                sent.append(self._send(report_uri, body))
        return sent

    def _send(self, report_uri: str, body: str) -> Sent:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        try:
            response = self.client().post(report_uri, content=body, headers=headers)
        except httpx.TransportError as error:
            return Sent(report_uri, False, one_line(error))
        return Sent(report_uri, response.is_success, f"it answered {response.status_code}")


class _Reports:
    """Which reports are sent: none by https to the failing host, and the same one once an hour (RFC 7469 §2.1.4).

    IsReportUriValidForHost and CheckPinsAndMaybeSendReport.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.waiting: deque[tuple[str, str]] = deque()
        self._clock = clock
        self._sent_at: OrderedDict[str, float] = OrderedDict()

    def add(self, report: Report, report_uri: str) -> None:
        """Take a report, like :meth:`dynpin.clientstore.Reporter.add`."""
        target = urlsplit(report_uri)
        if target.scheme == "https" and target.hostname == report.hostname:
            return
        # So two hosts that report to each other make no loop: a report is the same one even with another date.
        members = report.to_dict() | {"date-time": None, "effective-expiration-date": None}
        key, now = json.dumps([members, report_uri]), self._clock()
        sent_at = self._sent_at.get(key)
        if sent_at is not None and 0 <= now - sent_at < _REMEMBERED_FOR:
            return
        self._sent_at[key] = now
        if len(self._sent_at) > _REMEMBERED:
            self._sent_at.popitem(last=False)
        self.waiting.append((report_uri, report.to_json()))
