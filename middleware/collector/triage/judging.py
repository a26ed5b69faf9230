"""The work of the judging process: one report in, one diagnosis out, as values for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dynpin.pins import Pin
from dynpin.report import Report

from ..stored_json import kept_report
from .diagnosis import Diagnosis, RootKind
from .roots import Roots
from .rules import Case, diagnose
from .signatures import Signatures

__all__ = ["Judge", "Question", "Settings", "unjudged"]


class Settings(NamedTuple):
    """The operator's keys and roots, the same for all reports.

    Attributes:
        keys: the keys of all policies, pin to name.
        inventories: the keys of single policies, by token; a policy with an inventory does not use `keys`.
        roots: root certificates, PEM.
        as_of: the date of the stores of public CAs, seconds since the epoch, UTC.
    """

    keys: Mapping[str, str]
    inventories: Mapping[str, Mapping[str, str]]
    roots: str
    as_of: float


class Question(NamedTuple):
    """A report to judge, and its circumstances; see :class:`Case`.

    `seen` has the names of CAs by pin, for the known pins of the report.
    """

    body: str
    host: str
    port: int | None
    noted_host: str
    mode: str
    token: str
    received_at: float
    seen: Mapping[str, str]
    root_before: RootKind | None


class Judge:
    """Judges reports, one after the other."""

    def __init__(self, settings: Settings) -> None:
        self._keys = _pins(settings.keys)
        self._inventories = {token: _pins(keys) for token, keys in settings.inventories.items()}
        self._roots = Roots(settings.roots.encode(), as_of=settings.as_of)
        self._signatures = Signatures()

    def judge(self, question: Question) -> Diagnosis:
        """The diagnosis of one report."""
        # If the stored body is damaged, use what the group has.
        report = kept_report(question.body) or Report(
            question.host, question.port, question.noted_host or None, None, None, None, (), (), (), ("unreadable",)
        )
        self._signatures.begin()
        return diagnose(
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


def unjudged(reason: str) -> Diagnosis:
    """The diagnosis of a report that could not be judged."""
    return Diagnosis(verdict="undecided", reasons=[reason])


def _pins(named: Mapping[str, str]) -> dict[Pin, str]:
    return {Pin.from_base64(pin): name for pin, name in named.items()}
