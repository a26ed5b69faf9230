"""Count the pinning headers of many sites as published studies do: who pins, how, and with which faults.

A scan is a file of JSON lines with one response each. Its content comes from strangers. So a line that cannot be read
is counted and skipped, and no text is kept except one host for each fault.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

from dynpin.counts import counted
from dynpin.errors import InvalidHost
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins
from dynpin.hosts import canonical_host
from dynpin.noting import note
from dynpin.pins import Pin

from ..tables import csv_table, html_table
from .circumstances import Circumstances
from .faults import catalogue
from .linter import lint
from .sources import HeaderField, fields_of_response

__all__ = ["CLASSES", "MAX_AGES", "MAX_LINE", "Class", "Figure", "Response", "Scan", "read_response"]

# More than the headers of any server. A longer line counts as unreadable.
MAX_LINE = 1 << 20

Class = Literal["absent", "report-only", "ignored", "unpins", "mismatched", "no-backup", "noted"]
CLASSES: dict[Class, str] = {
    "absent": "no pinning header",
    "report-only": f"{REPORT_ONLY_NAME} alone",
    "ignored": "clients ignore it: malformed, without pins, or of an IP address",
    "unpins": "max-age is 0",
    "mismatched": "no pin is in the chain",
    "no-backup": "no Backup Pin",
    "noted": "clients note it",
}
# The values that sites sent most in the crawl of ElevenPaths (2016), in seconds: 1, 7, 30, 60, 182.5 and 365 days.
MAX_AGES = (86_400, 604_800, 2_592_000, 5_184_000, 15_768_000, 31_536_000)
_PIN_STEPS = ((1, "0-1"), (2, "2"), (3, "3"), (6, "4-6"), (9, "7-9"), (12, "10-12"))


class Response(NamedTuple):
    """One line of a scan.

    Attributes:
        host: the host that was asked, canonical.
        status: the HTTP status; None if the host did not answer.
        headers: the header fields, in the order in which they came.
        chain: the pins of the validated chain, leaf first; empty if it is unknown.
    """

    host: str
    status: int | None
    headers: tuple[tuple[str, str], ...]
    chain: tuple[Pin, ...]


def read_response(line: bytes) -> Response:
    """Read one line: ``{"host": "…", "status": 200, "headers": {"Public-Key-Pins": "…"}, "chain_pins": ["…"]}``.

    ``headers`` is an object of texts or lists of texts, or a list of [name, value] pairs. ``chain_pins`` may be left
    out. ``status`` is null or left out if the host did not answer.

    Raises:
        ValueError: if the line has another form.
    """
    if len(line) > MAX_LINE:
        raise ValueError(f"the line is longer than {MAX_LINE} bytes")
    try:
        loaded: object = json.loads(line)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(loaded, dict):
        raise ValueError("the line is not a JSON object")  # noqa: TRY004 - it is input, not a caller's type
    members = cast("dict[str, object]", loaded)
    host, status, chain = members.get("host"), members.get("status"), members.get("chain_pins")
    if not isinstance(host, str):
        raise ValueError("host is missing, or is not a text")  # noqa: TRY004
    if status is not None and type(status) is not int:
        raise ValueError("status is not a whole number")
    try:
        host = canonical_host(host)
    except InvalidHost as error:
        raise ValueError(str(error)) from None
    pins = [] if chain is None else cast("list[object]", chain) if isinstance(chain, list) else [chain]
    return Response(host, status, tuple(_fields(members.get("headers"))), tuple(map(_pin, pins)))


def _pin(value: object) -> Pin:
    if not isinstance(value, str):
        raise ValueError("chain_pins is not a list of texts")  # noqa: TRY004
    return Pin.from_base64(value)


def _fields(headers: object) -> list[tuple[str, str]]:
    pairs: list[object]
    if headers is None:
        pairs = []
    elif isinstance(headers, dict):
        by_name = cast("dict[str, object]", headers)
        pairs = [
            [name, value]
            for name, values in by_name.items()
            for value in (cast("list[object]", values) if isinstance(values, list) else [values])
        ]
    elif isinstance(headers, list):
        pairs = cast("list[object]", headers)
    else:
        raise ValueError("headers is neither an object nor a list")
    found: list[tuple[str, str]] = []
    for pair in pairs:
        match pair:
            case [str(name), str(value)]:
                found.append((name, value))
            case _:
                raise ValueError("headers holds something other than names and texts")
    return found


class Figure(NamedTuple):
    """One row of the result: a number of responses, and its share (0 to 1) of the responses in its table.

    The share is None if the table has no responses.
    """

    table: str
    name: str
    responses: int
    share: float | None


@dataclass(slots=True)
class Scan:
    """The counts of a scan so far.

    Attributes:
        lines: how many lines were read; `unreadable` of them were invalid.
        unanswered: hosts that gave no answer.
        classes: responses by class; every response has one.
        pins: responses with Public-Key-Pins by their number of distinct pins.
        max_ages: responses with a readable Public-Key-Pins header, by max-age in seconds. None stands for every value
            that is not in MAX_AGES, so that strangers do not decide how many are kept.
        faults: responses by fault; each fault counts once for a response.
        examples: the first host of each fault.
        include_subdomains: how many readable headers cover the subdomains.
        report_uri: how many readable headers name a report-uri.
        chains: how many responses with Public-Key-Pins have a chain.
    """

    lines: int = 0
    unreadable: int = 0
    unanswered: int = 0
    classes: Counter[Class] = field(default_factory=Counter[Class])
    pins: Counter[int] = field(default_factory=Counter[int])
    max_ages: Counter[int | None] = field(default_factory=Counter[int | None])
    faults: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, str] = field(default_factory=dict[str, str])
    include_subdomains: int = 0
    report_uri: int = 0
    chains: int = 0

    def add_line(self, line: bytes) -> None:
        """Count one line with any content.

        Raises:
            ValueError: if it cannot be read; it is counted as unreadable.
        """
        self.lines += 1
        try:
            response = read_response(line)
        except ValueError:
            self.unreadable += 1
            raise
        self.add(response)

    def add(self, response: Response) -> None:
        """Count one response."""
        if response.status is None:
            self.unanswered += 1
            return
        known = Circumstances(scheme="https", host=response.host, chain_pins=tuple(str(pin) for pin in response.chain))
        fields = fields_of_response(response.headers, response.host, known)
        enforced = next((each for each in fields if each.name == ENFORCE_NAME), None)
        self.classes[_class(response, fields, enforced)] += 1
        if enforced is not None:
            self._add_header(response, enforced)
        found = {
            each.fault for one in fields for each in lint(one.value, name=one.name, circumstances=one.circumstances)
        }
        self.faults.update(found)
        for fault in found:
            self.examples.setdefault(fault, response.host)

    def _add_header(self, response: Response, enforced: HeaderField) -> None:
        header = enforced.header
        self.chains += bool(response.chain)
        self.pins[0 if header is None else len(header.pins)] += 1
        if header is not None and header.max_age is not None:
            self.max_ages[header.max_age if header.max_age in MAX_AGES else None] += 1
            self.include_subdomains += header.include_subdomains
            self.report_uri += header.report_uri is not None

    @property
    def responses(self) -> int:
        """How many hosts answered."""
        return self.classes.total()

    @property
    def with_header(self) -> int:
        """How many responses had a pinning header, of either name."""
        return self.responses - self.classes["absent"]

    def figures(self) -> list[Figure]:
        """All figures, table by table: classes, pins, max_age, options, faults."""
        rows = [_figure("classes", name, self.classes[name], self.responses) for name in CLASSES]
        by_step = Counter[str]()
        for pins, count in self.pins.items():
            by_step[next((name for most, name in _PIN_STEPS if pins <= most), ">=13")] += count
        steps = [*(name for _, name in _PIN_STEPS), ">=13"]
        rows += [_figure("pins", name, by_step[name], self.pins.total()) for name in steps]
        read = self.max_ages.total()
        rows += [_figure("max_age", str(seconds), self.max_ages[seconds], read) for seconds in MAX_AGES]
        rows.append(_figure("max_age", "others", self.max_ages[None], read))
        rows.append(_figure("options", "includeSubDomains", self.include_subdomains, read))
        rows.append(_figure("options", "report-uri", self.report_uri, read))
        order = list(catalogue())
        worst = sorted(self.faults, key=lambda name: (-self.faults[name], order.index(name)))
        return rows + [_figure("faults", name, self.faults[name], self.with_header) for name in worst]

    def to_dict(self) -> dict[str, object]:
        """The result as JSON: the counts of lines, and one list of rows for each table."""
        tables: dict[str, list[dict[str, object]]] = {}
        for row in self.figures():
            shown: dict[str, object] = {"name": row.name, "responses": row.responses, "share": row.share}
            if row.table == "faults":
                shown |= {"severity": catalogue()[row.name].severity, "example": self.examples[row.name]}
            tables.setdefault(row.table, []).append(shown)
        return {
            "lines": self.lines,
            "unreadable": self.unreadable,
            "unanswered": self.unanswered,
            "responses": self.responses,
            "with_header": self.with_header,
            "with_chain": self.chains,
            "faults": [],
            **tables,
        }

    def to_csv(self) -> str:
        """The figures as CSV, one line for each. They contain no text of the sites."""
        return csv_table(Figure._fields, self.figures())

    def _repr_html_(self) -> str:
        """The figures as a table, for a notebook."""
        return html_table(
            f"{counted(self.lines, 'line')}, {counted(self.responses, 'response')}",
            ("Table", "Name", "Responses", "Share"),
            (
                (row.table, row.name, f"{row.responses:,}", None if row.share is None else f"{row.share:.2%}")
                for row in self.figures()
                if row.responses
            ),
        )


def _figure(table: str, name: str, count: int, of: int) -> Figure:
    return Figure(table, name, count, count / of if of else None)


def _class(response: Response, fields: list[HeaderField], enforced: HeaderField | None) -> Class:
    """The result of a client's first visit, in the order of its decisions (RFC 7469 §2.5)."""
    if not fields:
        return "absent"
    if enforced is None:
        return "report-only"
    header = enforced.header
    if header is None or (not header.pins and header.max_age != 0):
        return "ignored"
    if header.max_age == 0:
        return "unpins"
    chain = response.chain or _any_chain(header)
    if note(response.host, None, header, chain, now=0).outcome == "noted":
        return "noted"
    if not set(chain).intersection(header.pins):
        return "mismatched"
    return "no-backup" if set(chain).issuperset(header.pins) else "ignored"


def _any_chain(header: PublicKeyPins) -> tuple[Pin, ...]:
    """The assumed chain of a site whose chain was not recorded: the first pin of its header is deployed."""
    return header.pins[:1]
