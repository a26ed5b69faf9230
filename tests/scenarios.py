"""The scenarios of vectors/store.json, run against whatever keeps Known Pinned Hosts.

``test_noting.py`` runs them against a dict, ``clientstore/test_store.py`` against the PinStore.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict

import pytest

from dynpin import KnownPinnedHost, Noting, Pin, Validation
from tests.clock import BASE, Clock


class Keeper(Protocol):
    """What keeps Known Pinned Hosts."""

    def note(self, host: str, value: str, chain: Sequence[Pin], /) -> Noting: ...
    def validate(self, host: str, chain: Sequence[Pin], /) -> Validation: ...
    def known_host(self, host: str, /) -> KnownPinnedHost | None: ...
    def forget(self, host: str, /) -> bool: ...
    def count(self) -> int:
        """How many entries are alive."""
        ...

    def reopen(self) -> None:
        """Close it, and open the same file again."""
        ...


class Step(TypedDict):
    """One step: what is done, and what is to come of it."""

    do: str
    expect: object
    host: str
    value: str
    chain: list[str]
    t: int


class Scenario(TypedDict):
    """Steps that one store takes one after the other, and why they end as they do."""

    id: str
    section: str
    why: str
    steps: list[Step]
    agents: NotRequired[dict[str, str]]


def _scenarios() -> list[Scenario]:
    loaded: dict[str, list[Scenario]] = json.loads((Path(__file__).parent / "vectors/store.json").read_text())
    return loaded["scenarios"]


each_scenario = pytest.mark.parametrize("scenario", _scenarios(), ids=lambda scenario: scenario["id"])


def run(scenario: Scenario, make: Callable[[Clock], Keeper]) -> None:
    """Run one scenario against what `make` gives, which reads the time from the clock that it is given."""
    clock = Clock()
    keeper = make(clock)
    for number, step in enumerate(scenario["steps"]):
        match step["do"]:
            case "at":
                clock.now = BASE + step["t"]
                continue
            case "reopen":
                keeper.reopen()
                continue
            case _:
                expected = step["expect"]
                found = _take(step, keeper, expected)
        assert found == expected, f"step {number}, {step['do']}: {scenario['why']} (RFC 7469 §{scenario['section']})"


def _take(step: Step, keeper: Keeper, expected: object) -> object:
    """What comes of a step, in the words of the file."""
    match step["do"]:
        case "note":
            noting = keeper.note(step["host"], step["value"], _pins(step))
            assert noting.reason
            assert noting.section
            return {"outcome": noting.outcome}
        case "connect":
            validation = keeper.validate(step["host"], _pins(step))
            known = validation.known_host
            assert validation.reason
            return {"ok": validation.ok, "known_host": known and known.host}
        case "known":
            known = keeper.known_host(step["host"])
            return known and _members(known, expected)
        case "count":
            return keeper.count()
        case "forget":
            return keeper.forget(step["host"])
        case _:
            raise AssertionError(f"a step that nobody knows: {step['do']}")


def _pins(step: Step) -> list[Pin]:
    return [Pin.from_base64(text) for text in step["chain"]]


def _members(known: KnownPinnedHost, expected: object) -> dict[str, object]:
    """Those members of an entry that the file names."""
    members = {
        "host": known.host,
        "pins": [str(pin) for pin in known.pins],
        "include_subdomains": known.include_subdomains,
        "report_uri": known.report_uri,
    }
    return {name: value for name, value in members.items() if not isinstance(expected, dict) or name in expected}
