"""One report in, one judgement out: what the process that judges does, as values that JSON can carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from dynpin.pins import Pin
from dynpin.report import Report

from ..stored_json import kept_report
from .roots import Roots
from .rules import Case, diagnose
from .signatures import Signatures
from .verdicts import VERDICTS

__all__ = ["Judge", "Judgement", "Question", "Settings", "unjudged"]


class Settings(NamedTuple):
    """What is known of the operator's own: the same for all reports.

    Attributes:
        keys: the keys of all policies, pin to name.
        inventories: the keys of one policy each, by token; they stand in place of `keys`.
        roots: root certificates, PEM.
        as_of: the day of the stores of public CAs, seconds since the epoch, UTC.
    """

    keys: Mapping[str, str]
    inventories: Mapping[str, Mapping[str, str]]
    roots: str
    as_of: float


class Question(NamedTuple):
    """A report to judge, and what is known around it; see :class:`Case`.

    `seen` has the names of CAs by their pins, for the pins that the report knows.
    """

    body: str
    host: str
    port: int | None
    noted_host: str
    mode: str
    token: str
    received_at: float
    seen: Mapping[str, str]
    root_before: str | None


class Judgement(NamedTuple):
    """What was found: the verdict, the diagnosis as JSON, and each pin with its place and the CA that it names."""

    verdict: str
    severity: str
    issuer: str
    diagnosis: str
    pins: tuple[tuple[str, str, str | None], ...]


class Judge:
    """Judges reports, one after the other."""

    def __init__(self, settings: Settings) -> None:
        self._keys = _pins(settings.keys)
        self._inventories = {token: _pins(keys) for token, keys in settings.inventories.items()}
        self._roots = Roots(settings.roots.encode(), as_of=settings.as_of)
        self._signatures = Signatures()

    def judge(self, question: Question) -> Judgement:
        """The judgement on one report."""
        # A body that was damaged in the file says no more than its group does.
        report = kept_report(question.body) or Report(
            question.host, question.port, question.noted_host or None, None, None, None, (), (), (), ("unreadable",)
        )
        self._signatures.begin()
        found = diagnose(
            Case(
                report=report,
                received_at=question.received_at,
                mode=question.mode,
                roots=self._roots,
                keys=self._inventories.get(question.token, self._keys),
                seen=_pins(question.seen),
                root_before=question.root_before,
                signatures=self._signatures,
            )
        )
        pins = [
            (str(one.pin), place, one.subject if one.is_ca else None)
            for place, chain in (("served", found.served), ("validated", found.validated))
            for one in chain
            if one.pin is not None
        ]
        return Judgement(
            found.verdict.name, found.verdict.severity, found.issuer, json.dumps(found.to_dict()), tuple(pins)
        )


def unjudged(reason: str) -> Judgement:
    """The judgement on a report that could not be judged."""
    verdict = VERDICTS["undecided"]
    diagnosis: dict[str, object] = {
        "verdict": verdict.name,
        "title": verdict.title,
        "severity": verdict.severity,
        "summary": verdict.summary,
        "advice": verdict.advice,
        "reasons": [reason],
        "notes": [],
        "failing": None,
        "root": "unknown",
        "report-only-inferred": False,
        "known-pins": [],
        "served": [],
        "validated": [],
    }
    return Judgement(verdict.name, verdict.severity, "", json.dumps(diagnosis), ())


def _pins(named: Mapping[str, str]) -> dict[Pin, str]:
    return {Pin.from_base64(pin): name for pin, name in named.items()}
