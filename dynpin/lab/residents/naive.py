"""A client with deliberate faults. Each fault is something that clients did, or that a reader may misunderstand."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from dynpin.clientstore.enforcement import unverified_chain, verified_chain
from dynpin.errors import InvalidHeader
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins
from dynpin.hosts import is_ip_literal
from dynpin.lab.network import loopback_names
from dynpin.lab.residents.task import Answer, Task
from dynpin.pins import chain_pins

__all__ = ["FAULTS", "TEN", "Naive"]

FAULTS: Mapping[str, str] = {
    # The ten of the agent "naive".
    "age-optional": "takes a header without max-age for one of 60 days",
    "last-repeated": "takes the last of repeated directives",
    "two-pins-suffice": "wants two pins, but none outside the chain",
    "suffix": "takes a name with the same ending for a subdomain",
    "meta": "obeys http-equiv in pages",
    "plain-http": "notes headers that came over plain HTTP",
    "addresses": "notes IP addresses",
    "ports": "keeps separate pins for each port of a host",
    "immortal": "keeps pins after max-age",
    "report-only-enforced": "notes what a report-only header says",
    # One or more for each other rule: the tests of the scorer use them.
    "blind": "notes nothing",
    "careless": "notes whatever has a pin of the right length, whatever else the header says",
    "strict-order": "accepts pins only first, in lower case, with one space after each semicolon",
    "malformed-unpins": "forgets a host that sends a malformed header or one without pins",
    "never-unpins": "ignores max-age=0",
    "hosts-alone": "ignores includeSubDomains",
    "nearest": "lets the nearest entry hide a farther one",
    "farthest": "takes the entry of the farthest name",
    "everything-below": "covers subdomains and parents even without includeSubDomains",
    "unpins-parent": "lets max-age=0 of a subdomain remove its parent's entry",
    "last-field": "reads the last of several header fields",
    "ok-alone": "reads the headers of responses with status 200 only",
    "redirects-unchecked": "checks no pins after a redirect",
    "case": "compares host names as they are written",
    "short-lived": "forgets pins at once when time passes",
    "fixed-expiry": "never moves the expiry",
    "adds-up": "adds new pins to the old ones",
    "first-pin-alone": "checks connections against the first pin only",
    "served-chain": "checks pins against the chain that was sent, not the validated one",
    "directly-issued": "checks no pins if a root has issued the leaf itself",
    "leaf-alone": "compares only the leaf's key",
    "first-header-alone": "never changes an entry",
    "in-memory": "keeps pins in memory",
    "trusts-pinned": "accepts a pinned key as proof, even if the certificate is invalid",
    "trusts-all": "refuses nothing",
    "resumes": "checks no pins in resumed sessions",
    "never-forgets": "forgets nothing when the user asks",
    "report-bare": "sends reports with only two members",
    "report-never": "sends no reports",
    "report-always": "reports every failure again",
    "report-all": "reports policies that hold",
    "report-blind": "checks no pins of the host that it reports to",
    "report-only-strict": "reads max-age in report-only headers",
    "report-only-refuses": "refuses if a report-only policy fails",
    "report-only-first": "prefers a report-only header",
}
TEN = tuple(FAULTS)[:10]

_DAY = 86_400
_ANY_PIN = re.compile(r"""pin-sha256\s*=\s*["']?\\?([A-Za-z0-9+/]{43}=)""", re.IGNORECASE)
_META = re.compile(r"http-equiv='Public-Key-Pins' content='([^']*)'")
_PLAIN = re.compile(r'(pin-sha256="[A-Za-z0-9+/=]+"; ){2,}max-age=\d{1,9}(; includeSubDomains)?(; report-uri="[^"]*")?')


class _Entry(TypedDict):
    """The entry of a host."""

    pins: list[str]
    below: bool
    expires: float
    report_uri: str | None
    port: int | None


@dataclass
class _Response:
    status: int
    headers: http.client.HTTPMessage
    body: str


class Naive:
    """A client with faults. Without any it keeps every rule.

    Args:
        faults: names from :data:`FAULTS`; the ten of :data:`TEN` if there are none, and no fault for ``"none"``.
    """

    def __init__(self, *faults: str) -> None:
        self._faults = frozenset(faults or TEN) - {"none"}
        if unknown := self._faults - FAULTS.keys():
            raise ValueError(f"no fault {', '.join(sorted(unknown))}")
        self._store = ""
        self._context = ssl.create_default_context()
        self._sessions: dict[str, tuple[ssl.SSLSession, list[str]]] = {}
        self._hosts: dict[str, _Entry] = {}
        self._reported: set[str] = set()

    def __call__(self, task: Task) -> Answer:
        """Do a task."""
        if task.store != self._store:
            self._store, self._sessions, self._reported = task.store, {}, set()
            self._context = ssl.create_default_context(cafile=task.ca)
            path = Path(task.store)
            self._hosts = json.loads(path.read_text()) if path.exists() else {}
        self._task = task
        try:
            with loopback_names():
                answer = self._do(task)
        except _Refused as refusal:
            answer = Answer("refused", str(refusal))
        except ssl.SSLError as error:
            answer = Answer("refused", str(error))
        except OSError as error:
            answer = Answer("failed", str(error))
        if not self._has("in-memory"):
            Path(task.store).write_text(json.dumps(self._hosts))
        return answer

    def _has(self, fault: str) -> bool:
        return fault in self._faults

    def _do(self, task: Task) -> Answer:
        match task.do:
            case "visit":
                self._visit(task.url)
                return Answer("served")
            case "forget":
                if not self._has("never-forgets"):
                    self._hosts.pop(task.host, None)
                return Answer("done")
            case "preload":
                self._hosts[task.host] = _Entry(
                    pins=list(task.pins), below=False, expires=task.now + 60 * _DAY, report_uri=None, port=None
                )
                return Answer("done")
            case _:
                return Answer("unsupported", f"no {task.do}")

    # -- connecting ----------------------------------------------------------------------------------------------------

    def _visit(self, url: str, *, redirected: bool = False) -> None:
        place = urlsplit(url)
        host = place.netloc.rpartition(":")[0] if self._has("case") else place.hostname or ""
        port = place.port or 443
        if place.scheme == "http":
            with closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
                response = _ask(connection, "GET", place.path)
            if self._has("plain-http"):
                # Its rule: a server that shows a pinned key is genuine.
                fields = response.headers.get_all(ENFORCE_NAME, [])[:1]
                self._note(host, None, fields, _ANY_PIN.findall("".join(fields))[:1])
            return
        response, pins = self._get(
            host, port, place.path, checked=not (redirected and self._has("redirects-unchecked"))
        )
        fields = response.headers.get_all(ENFORCE_NAME, [])
        if self._has("meta"):
            fields += _META.findall(response.body)
        report_only = response.headers.get_all(REPORT_ONLY_NAME, [])[:1]
        if (self._has("report-only-enforced") and not fields) or (self._has("report-only-first") and report_only):
            fields = report_only
        if response.status == 200 or not self._has("ok-alone"):
            self._note(host, port, fields[-1:] if self._has("last-field") else fields[:1], pins)
        self._report_only(host, port, report_only, pins)
        location = response.headers["Location"]
        if response.status in (301, 302) and location:
            self._visit(location, redirected=True)

    def _get(self, host: str, port: int, path: str, *, checked: bool) -> tuple[_Response, list[str]]:
        tls, pins = self._connect(host, port)
        entry = self._entry(host, port)
        if entry is not None and checked and not self._holds(entry, pins, tls) and not self._has("trusts-all"):
            tls.close()
            if entry["report_uri"]:
                self._report(host, port, entry["pins"], entry["report_uri"])
            raise _Refused(f"{host} shows no pinned key")
        with closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
            connection.sock = tls
            response = _ask(connection, "GET", path)
            # The tickets come with the answer.
            if tls.session is not None and not tls.session_reused:
                self._sessions[host] = (tls.session, pins)
        return response, pins

    def _connect(self, host: str, port: int) -> tuple[ssl.SSLSocket, list[str]]:
        plain = _socket(host, port)
        session, pins = self._sessions.get(host) or (None, list[str]())
        try:
            tls = self._context.wrap_socket(plain, server_hostname=host, session=session)
        except ssl.SSLCertVerificationError:
            if not self._has("trusts-pinned"):
                raise
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            tls = context.wrap_socket(_socket(host, port), server_hostname=host)
            return tls, _served_pins(tls)
        if tls.session_reused:
            return tls, [] if self._has("resumes") else pins
        return tls, [str(pin) for pin in chain_pins(verified_chain(tls))]

    def _holds(self, entry: _Entry, pins: Sequence[str], tls: ssl.SSLSocket) -> bool:
        if not pins or (len(pins) == 2 and self._has("directly-issued")):
            return True
        if self._has("served-chain"):
            pins = _served_pins(tls)
        if self._has("leaf-alone"):
            pins = pins[:1]
        return bool(set(entry["pins"][:1] if self._has("first-pin-alone") else entry["pins"]) & set(pins))

    # -- the store -----------------------------------------------------------------------------------------------------

    def _entry(self, host: str, port: int) -> _Entry | None:
        """The entry that applies."""
        late = self._has("short-lived") and self._task.ahead
        alive = {
            name: entry
            for name, entry in self._hosts.items()
            if (entry["expires"] > self._task.now and not late) or self._has("immortal")
        }
        labels = host.split(".")
        names = [".".join(labels[at:]) for at in range(len(labels))]
        if self._has("farthest"):
            names.reverse()
        if self._has("suffix"):
            names += [name for name in alive if host.endswith(name)]
        if self._has("everything-below"):
            names += [name for name in alive if name.endswith(f".{host}")]
        for name in names:
            entry = alive.get(name)
            if entry is None or (name == host and self._has("ports") and entry["port"] not in (None, port)):
                continue
            if name == host or (entry["below"] and not self._has("hosts-alone")) or self._has("everything-below"):
                return entry
            if self._has("nearest"):
                return None
        return None

    # -- noting --------------------------------------------------------------------------------------------------------

    def _note(self, host: str, port: int | None, fields: Sequence[str], chain: Sequence[str]) -> None:
        if not fields or self._has("blind") or (is_ip_literal(host) and not self._has("addresses")):
            return
        known = self._hosts.get(host)
        if known is not None and self._has("first-header-alone"):
            return
        header = self._parse(fields[0])
        if header is None or not header.pins:
            unknown_alone = header is not None and header.other_pins
            if self._has("malformed-unpins") or (unknown_alone and not self._has("never-unpins")):
                self._hosts.pop(host, None)
            return
        if header.max_age == 0:
            if not self._has("never-unpins"):
                self._hosts.pop(host, None)
            if self._has("unpins-parent"):
                self._hosts.pop(host.partition(".")[2], None)
            return
        pins = [str(pin) for pin in header.pins]
        in_chain = [pin for pin in pins if pin in chain]
        valid = in_chain and (len(in_chain) < len(pins) or (len(pins) > 1 and self._has("two-pins-suffice")))
        if not valid and not self._has("careless"):
            return
        if known is not None and self._has("adds-up"):
            pins, below = [*known["pins"], *pins], known["below"] or header.include_subdomains
        else:
            below = header.include_subdomains
        expires = self._task.now + (header.max_age or 0)
        if known is not None and self._has("fixed-expiry"):
            expires = known["expires"]
        self._hosts[host] = _Entry(pins=pins, below=below, expires=expires, report_uri=header.report_uri, port=port)

    def _parse(self, value: str) -> PublicKeyPins | None:
        if self._has("careless") and (pins := _ANY_PIN.findall(value)):
            value = "; ".join([*(f'pin-sha256="{pin}"' for pin in pins), "max-age=100000"])
        if self._has("strict-order") and not _PLAIN.fullmatch(value):
            return None
        if self._has("last-repeated"):
            value = re.sub(r"max-age=\d+;(?=.*max-age=)", "", value)
        if self._has("age-optional") and "max-age" not in value.lower():
            value += f"; max-age={60 * _DAY}"
        try:
            return PublicKeyPins.parse(value)
        except InvalidHeader:
            return None

    # -- reports -------------------------------------------------------------------------------------------------------

    def _report_only(self, host: str, port: int, fields: Sequence[str], chain: Sequence[str]) -> None:
        if not fields or (self._has("report-only-strict") and "max-age=soon" in fields[0]):
            return
        try:
            header = PublicKeyPins.parse(fields[0], report_only=True)
        except InvalidHeader:
            return
        pins = [str(pin) for pin in header.pins]
        fails = not set(pins) & set(chain)
        if header.report_uri and (fails or self._has("report-all")):
            self._report(host, port, pins, header.report_uri)
        if fails and self._has("report-only-refuses"):
            self._hosts[host] = _Entry(
                pins=pins, below=False, expires=self._task.now + _DAY, report_uri=None, port=None
            )

    def _report(self, host: str, port: int, pins: Sequence[str], report_uri: str) -> None:
        key = json.dumps([host, list(pins), report_uri])
        if self._has("report-never") or (key in self._reported and not self._has("report-always")):
            return
        self._reported.add(key)
        report: dict[str, Any] = {"hostname": host, "known-pins": [f'pin-sha256="{pin}"' for pin in pins]}
        if not self._has("report-bare"):
            report |= {
                "date-time": "2026-01-01T00:00:00Z",
                "port": port,
                "effective-expiration-date": "2026-01-01T00:00:00Z",
                "include-subdomains": False,
                "noted-hostname": host,
                "served-certificate-chain": [],
                "validated-certificate-chain": [],
            }
        place = urlsplit(report_uri)
        to, at = place.hostname or "", place.port or 443
        with closing(http.client.HTTPConnection(to, at, timeout=30)) as connection:
            if place.scheme == "https":
                connection.sock, shown = self._connect(to, at)
                entry = self._entry(to, at)
                if (
                    entry is not None
                    and not self._holds(entry, shown, connection.sock)
                    and not self._has("report-blind")
                ):
                    return
            _ask(connection, "POST", place.path, json.dumps(report))


class _Refused(Exception):
    """Pin Validation failed."""


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> _Response:
    connection.request(method, path or "/", body, {"Content-Type": "application/json"} if body else {})
    response = connection.getresponse()
    return _Response(response.status, response.headers, response.read().decode(errors="replace"))


def _socket(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), timeout=30)


def _served_pins(tls: ssl.SSLSocket) -> list[str]:
    """The pins of what the server sent."""
    return [str(pin) for pin in chain_pins(unverified_chain(tls))]
