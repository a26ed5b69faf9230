"""Shared by the tests of violation reports: a report, and a queue that sends only when told."""

from __future__ import annotations

import ssl

import pytest

from dynpin import KnownPinnedHost, Pin, PinValidationError, Report
from dynpin.clientstore import PinStore, ReportQueue
from dynpin.report import build_report

from ..clock import BASE
from .world import HOST, World

PINS = (Pin(bytes(32)), Pin(b"\x01" * 32))


HOUR, DAY = 3600.0, 86_400.0


URI = "http://report.test/hpkp"


def a_report(host: str = HOST, *, at: float = BASE, noted: str | None = None) -> Report:
    known = KnownPinnedHost(noted or host, PINS, True, URI, at, at + DAY)
    return build_report(host=host, port=443, known_host=known, served=[], validated=[], now=at)


def by_hand(store: PinStore, **options: object) -> ReportQueue:
    return ReportQueue(store, background=False, **options)  # type: ignore[arg-type] # the options of the case


def violate(world: World, context: ssl.SSLContext) -> PinValidationError:
    with pytest.raises(PinValidationError) as caught:
        context.wrap_socket(world.connect(world.attacker), server_hostname=HOST)
    return caught.value


def outcomes(queue: ReportQueue) -> list[str]:
    return [delivery.outcome for delivery in queue.send()]
