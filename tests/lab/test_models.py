"""The models of Chromium and Firefox, compared with known facts about the browsers: vectors, source, publications."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest

from dynpin import InvalidHeader, KnownPinnedHost, Noting, Pin, PublicKeyPins, Validation
from dynpin.hosts import canonical_host
from dynpin.lab.agents.browser import BrowserStore, Reader
from dynpin.lab.agents.chromium import ChromiumStore, read_as_chromium
from dynpin.lab.agents.firefox import MAX_ENTRIES, FirefoxStore, read_as_firefox
from dynpin.lab.scenarios import play, scenarios
from dynpin.validation import validate
from tests.clock import Clock
from tests.scenarios import Scenario, each_scenario, run

ONE, TWO = (Pin(bytes([number]) * 32) for number in (1, 2))
VALID = f'pin-sha256="{ONE}"; pin-sha256="{TWO}"'
HOST = "bank.test"


class Vector(TypedDict):
    """One value of vectors/header.json."""

    id: str
    header: str
    value: str
    rfc: dict[str, object]
    agents: NotRequired[dict[str, str]]


HEADERS: list[Vector] = json.loads((Path(__file__).parents[1] / "vectors/header.json").read_text())["vectors"]
STORES: list[Scenario] = json.loads((Path(__file__).parents[1] / "vectors/store.json").read_text())["scenarios"]

READ: dict[str, Reader] = {"Chromium": read_as_chromium, "Firefox": read_as_firefox}
MODELS: dict[str, Callable[[Path, Clock], BrowserStore]] = {
    "Chromium": lambda folder, clock: ChromiumStore(folder / "TransportSecurity", clock=clock),
    "Firefox": lambda folder, clock: FirefoxStore(folder / "SiteSecurityServiceState.txt", clock=clock),
}

# Agents in the vectors that are not in the lab.
NOT_MODELLED = {
    "tam7t/hpkp": "a Go library in memory, of which the vectors tell how it cuts a report-uri; no user has it",
    "Python base64 with added padding": "no user agent: what a careless parser would do",
}

# Where a model differs from the RFC but the vectors name no difference: read in the browser's own source.
READ_IN_THE_SOURCE = {
    "Chromium": {
        "pin-11": "single quotes, as in ch-ok-14",
        "gr-20": "too long by directives that nobody knows: no limit of 8 KiB",
    },
    "Firefox": {
        "ch-ok-02": "white space around '='",
        "ch-ok-11": "max-age has 64 bits",
        "age-10": "max-age has 64 bits",
        "pin-15": "a backslash stays in a quoted-string",
        "age-02": "a backslash stays in a quoted-string",
        "ch-bad-28": "report-uri is not read",
        "uri-01": "report-uri is not read",
        "uri-03": "report-uri is not read",
        "uri-05": "report-uri is not read",
        "gr-20": "too long by directives that nobody knows: no limit of 8 KiB",
    },
}


def read(agent: str, vector: Vector) -> PublicKeyPins | None:
    try:
        return READ[agent](vector["value"], report_only=vector["header"] == "Public-Key-Pins-Report-Only")
    except InvalidHeader:
        return None


# -- the vectors ------------------------------------------------------------------------------------------------------


def test_everybody_of_whom_the_vectors_tell_plays_or_is_named() -> None:
    told = {agent for vector in HEADERS for agent in vector.get("agents", {})}
    told |= {agent for scenario in STORES for agent in scenario.get("agents", {})}
    assert told == {*READ, "wget2", *NOT_MODELLED}


DIFFERENCES = [(agent, vector) for vector in HEADERS for agent in READ if agent in vector.get("agents", {})]


@pytest.mark.parametrize(
    ("agent", "vector"), DIFFERENCES, ids=[f"{agent}-{vector['id']}" for agent, vector in DIFFERENCES]
)
def test_a_model_agrees_with_the_vectors_about_its_browser(agent: str, vector: Vector, tmp_path: Path) -> None:
    told = vector["agents"][agent]
    header = read(agent, vector)
    if told.startswith("accepts"):
        assert header is not None
        assert not vector["rfc"]["valid"]
        if vector["header"] == "Public-Key-Pins":
            with MODELS[agent](tmp_path, Clock()) as store:
                assert store.note(HOST, vector["value"], header.pins[:1]).outcome == "noted"
    elif told == "refuses: reads the value all the same":
        assert header is None
    else:
        outcome = {"refuses at parsing": "ignored", "ignores: no pins": "ignored", "removes the host": "removed"}[told]
        with MODELS[agent](tmp_path, Clock()) as store:
            assert store.note(HOST, f"{VALID}; max-age=1000", [ONE]).outcome == "noted"
            assert store.note(HOST, vector["value"], [ONE]).outcome == outcome
            assert (store.known_host(HOST) is None) == (outcome == "removed")


ELSEWHERE = [(agent, vector) for vector in HEADERS for agent in READ if agent not in vector.get("agents", {})]


@pytest.mark.parametrize(("agent", "vector"), ELSEWHERE, ids=[f"{agent}-{vector['id']}" for agent, vector in ELSEWHERE])
def test_elsewhere_a_model_reads_as_the_rfc_does(agent: str, vector: Vector) -> None:
    header, rfc = read(agent, vector), vector["rfc"]
    if vector["id"] in READ_IN_THE_SOURCE[agent]:
        assert (header is not None) != rfc["valid"]
        return
    assert (header is not None) == rfc["valid"]
    if header is not None:
        assert [str(pin) for pin in header.pins] == rfc["pins"]
        assert (header.max_age, header.include_subdomains) == (rfc["max_age"], rfc["include_subdomains"])
        assert header.report_uri == (rfc["report_uri"] if agent == "Chromium" else None)


def met(store: BrowserStore, host: str, chain: Sequence[Pin]) -> Validation:
    """The result of a handshake: the guards look the host up, and check the chain against its pins."""
    name = canonical_host(host)
    found = store.look_up(name)
    return validate(name, found.known_host, chain, now=found.now)


class Kept:
    """A model's store with the interface of the scenarios in vectors/store.json."""

    def __init__(self, make: Callable[[], BrowserStore]) -> None:
        self._make = make
        self._store = make()

    def note(self, host: str, value: str, chain: Sequence[Pin], /) -> Noting:
        return self._store.note(host, value, chain)

    def validate(self, host: str, chain: Sequence[Pin], /) -> Validation:
        return met(self._store, host, chain)

    def known_host(self, host: str, /) -> KnownPinnedHost | None:
        return self._store.known_host(host)

    def forget(self, host: str, /) -> bool:
        return self._store.forget(host)

    def count(self) -> int:
        return len(self._store.hosts())

    def reopen(self) -> None:
        self._store.close()
        self._store = self._make()


# By scenario: the step with another result, the difference, and why. Later steps no longer apply.
OTHERWISE: dict[str, dict[str, tuple[int, dict[str, object], str]]] = {
    "Chromium": {
        "max-age-zero-without-pins": (1, {"outcome": "ignored"}, "the vectors: Chromium ignores"),
        "only-unknown-algorithms": (1, {"outcome": "ignored"}, "a directive that nobody knows, and no pin"),
        "congruent-wins": (4, {"ok": True, "known_host": None}, "the nearest name's entry hides a farther one"),
    },
    "Firefox": {
        "only-unknown-algorithms": (1, {"outcome": "ignored"}, "a directive that nobody knows, and no pin"),
        "replace-exactly": (1, {"report_uri": None}, "report-uri is not kept"),
    },
}


@each_scenario
@pytest.mark.parametrize("agent", READ)
def test_a_model_keeps_pins_as_in_the_rfc_except_for_known_differences(
    agent: str, scenario: Scenario, tmp_path: Path
) -> None:
    told = scenario.get("agents", {}).get(agent)
    otherwise = OTHERWISE[agent].get(scenario["id"])
    assert told in (None, "ignores", "removes")
    assert (told == "ignores") <= (otherwise is not None)
    if otherwise is not None:
        number, changed, _ = otherwise
        steps = [step.copy() for step in scenario["steps"][: number + 1]]
        before = steps[number]["expect"]
        assert isinstance(before, dict)
        steps[number]["expect"] = before | changed
        assert steps[number]["expect"] != before
        scenario = {**scenario, "steps": steps}
    run(scenario, lambda clock: Kept(lambda: MODELS[agent](tmp_path, clock)))


LENIENT: dict[str, dict[str, int | None]] = {
    "Chromium": {
        f"max-age=1; {VALID}; max-age=2": 2,
        f"{VALID}; max-age = 3": 3,
        f"{VALID}; max-age='4'": 4,
        f'{VALID}; max-age=5; note="\x7f"': 5,
        f"{VALID}; max-age=6; odd; odd": 6,
    },
    "Firefox": {
        f"max-age=1; {VALID}; max-age=2": None,
        f"{VALID}; max-age = 3": 3,
        f"{VALID}; max-age='4'": None,
        f"{VALID}; max-age=6; odd; odd": 6,
        f'{VALID}; max-age=7; includeSubDomains=""': 7,
        f"{VALID}; max-age=8; includeSubDomains=1": None,
        f"{VALID}; max-age=9; report-uri=x; report-uri=y": None,
    },
}


@pytest.mark.parametrize("agent", LENIENT)
def test_how_lenient_a_browser_is(agent: str) -> None:
    for value, max_age in LENIENT[agent].items():
        try:
            header = READ[agent](value)
        except InvalidHeader:
            assert max_age is None, value
        else:
            assert (header.max_age, header.pins) == (max_age, (ONE, TWO)), value


def test_chromium_deletes_an_expired_entry_at_look_up(tmp_path: Path) -> None:
    clock = Clock()
    with ChromiumStore(tmp_path / "TransportSecurity", clock=clock) as store:
        store.note(HOST, f"{VALID}; max-age=1000", [ONE])
        clock.now += 1001
        assert met(store, HOST, [TWO]).known_host is None
        clock.now -= 1001
        assert store.known_host(HOST) is None


# -- Firefox's table --------------------------------------------------------------------------------------------------


def test_firefox_evicts_the_least_used_when_its_table_is_full(tmp_path: Path) -> None:
    clock = Clock()
    with FirefoxStore(tmp_path / "state.txt", clock=clock) as store:
        for host in ("daily.test", "once.test"):
            store.note(host, f"{VALID}; max-age=5184000", [ONE])
        clock.now += 86_400
        assert met(store, "daily.test", [ONE]).ok
        for number in range(MAX_ENTRIES - 2):
            store.note(f"host{number}.evil.test", f"{VALID}; max-age=5184000", [ONE])
        assert store.known_host("once.test") is not None
        assert len(store.hosts()) == MAX_ENTRIES
        store.note("last-straw.evil.test", f"{VALID}; max-age=5184000", [ONE])
        assert store.known_host("once.test") is None
        assert store.known_host("daily.test") is not None
        assert len(store.hosts()) == MAX_ENTRIES

        # The flood comes on more days than the pins were used: now the pins are the least used.
        names = [each.host for each in store.hosts() if each.host.endswith(".evil.test")]
        for _ in range(2):
            clock.now += 86_400
            for name in names:
                assert met(store, name, [ONE]).ok
        store.note("one-more.evil.test", f"{VALID}; max-age=5184000", [ONE])
        assert store.known_host("daily.test") is None


def test_the_story_of_the_flood_holds_whichever_of_the_least_used_firefox_evicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # DataStorage.cpp: "which one is not specified".
    monkeypatch.setattr(FirefoxStore, "victim", lambda _, lowest: lowest[-1])
    assert play(scenarios()["store-flooding"], "firefox").ok


def test_a_crash_takes_what_firefox_noted_in_the_last_five_minutes(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "state.txt"
    store = FirefoxStore(file, clock=clock)
    store.note("early.test", f"{VALID}; max-age=1000; includeSubDomains", [ONE])
    clock.now += 301
    store.note("late.test", f"{VALID}; max-age=1000", [ONE])
    clock.now += 299
    store.note("later.test", f"{VALID}; max-age=1000", [ONE])
    store.crash()
    with FirefoxStore(file, clock=clock) as again:
        early = again.known_host("sub.early.test")
        assert early is not None
        assert (early.pins, early.expires_at) == ((ONE, TWO), clock.now - 600 + 1000)
        assert again.known_host("later.test") is None


# -- pins that are built in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agent", "weeks"), [("Chromium", 10), ("Firefox", 14)])
def test_built_in_pins_lapse_with_the_build_and_come_after_noted_ones(agent: str, weeks: int, tmp_path: Path) -> None:
    clock = Clock()
    with MODELS[agent](tmp_path, clock) as store:
        store.pin(HOST, [ONE])
        assert met(store, HOST, [ONE]).ok
        assert not met(store, HOST, [TWO]).ok
        store.note(HOST, f"{VALID}; max-age=1000", [ONE])
        assert met(store, HOST, [TWO]).ok, "noted pins come first"
        clock.now += 1001
        assert not met(store, HOST, [TWO]).ok, "and then the built-in ones again"
        clock.now += weeks * 7 * 86_400 - 1000
        assert met(store, HOST, [TWO]).known_host is None


def test_only_in_firefox_a_nearer_built_in_pin_comes_before_a_farther_noted_one(
    tmp_path: Path,
) -> None:
    for agent, first in (("Chromium", "bank.test"), ("Firefox", "www.bank.test")):
        with MODELS[agent](tmp_path, Clock()) as store:
            store.pin("www.bank.test", [TWO])
            store.note("bank.test", f"{VALID}; max-age=1000; includeSubDomains", [ONE])
            known = store.known_host("www.bank.test")
            assert known is not None
            assert known.host == first
