"""The user agents of the lab: the models against what is known of the browsers, and all of them on real sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest

from dynpin import InvalidHeader, KnownPinnedHost, Noting, Pin, PublicKeyPins, Validation
from dynpin.lab.agents import AGENTS
from dynpin.lab.agents.browser import BrowserStore
from dynpin.lab.agents.chromium import ChromiumStore, read_as_chromium
from dynpin.lab.agents.firefox import MAX_ENTRIES, FirefoxStore, read_as_firefox
from dynpin.lab.stage import Stage, days, hours, minutes, set_stage
from tests.scenarios import Clock, Scenario, each_scenario, run

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

Read = Callable[..., PublicKeyPins]
READ: dict[str, Read] = {"Chromium": read_as_chromium, "Firefox": read_as_firefox}
MODELS: dict[str, Callable[[Path, Clock], BrowserStore]] = {
    "Chromium": lambda folder, clock: ChromiumStore(folder / "pins.sqlite", clock=clock),
    "Firefox": lambda folder, clock: FirefoxStore(folder / "SiteSecurityServiceState.txt", clock=clock),
}

# Those of whom the vectors know something, and who do not play here.
NOT_MODELLED = {
    "tam7t/hpkp": "a Go library in memory, of which the vectors tell how it cuts a report-uri; no user has it",
    "Python base64 with added padding": "no user agent: what a careless parser would do",
}

# Where a model departs from the RFC and the vectors name no departure: read in the browser's own source.
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
def test_where_the_vectors_tell_of_a_browser_its_model_does_the_same(
    agent: str, vector: Vector, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize("vector", HEADERS, ids=lambda vector: vector["id"])
@pytest.mark.parametrize("agent", READ)
def test_elsewhere_a_model_reads_as_the_rfc_does(agent: str, vector: Vector) -> None:
    if agent in vector.get("agents", {}):
        return  # the test above
    header, rfc = read(agent, vector), vector["rfc"]
    if vector["id"] in READ_IN_THE_SOURCE[agent]:
        assert (header is not None) != rfc["valid"]
        return
    assert (header is not None) == rfc["valid"]
    if header is not None:
        assert [str(pin) for pin in header.pins] == rfc["pins"]
        assert (header.max_age, header.include_subdomains) == (rfc["max_age"], rfc["include_subdomains"])
        assert header.report_uri == (rfc["report_uri"] if agent == "Chromium" else None)


class Kept:
    """A store of a model, as the scenarios of vectors/store.json take it."""

    def __init__(self, make: Callable[[], BrowserStore]) -> None:
        self._make = make
        self._store = make()

    def note(self, host: str, value: str, chain: Sequence[Pin], /) -> Noting:
        return self._store.note(host, value, chain)

    def validate(self, host: str, chain: Sequence[Pin], /) -> Validation:
        return self._store.validate(host, chain)

    def known_host(self, host: str, /) -> KnownPinnedHost | None:
        return self._store.known_host(host)

    def forget(self, host: str, /) -> bool:
        return self._store.forget(host)

    def count(self) -> int:
        return len(self._store)

    def reopen(self) -> None:
        self._store.close()
        self._store = self._make()


# By scenario: the step that comes out otherwise, in what, and why. What follows it stands in another world.
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
def test_a_model_keeps_pins_as_the_rfc_has_it_but_where_it_is_known_not_to(
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


# -- Firefox's table --------------------------------------------------------------------------------------------------


def test_firefox_evicts_the_least_used_when_its_table_is_full(tmp_path: Path) -> None:
    clock = Clock()
    with FirefoxStore(tmp_path / "state.txt", clock=clock) as store:
        for host in ("daily.test", "once.test"):
            store.note(host, f"{VALID}; max-age=5184000", [ONE])
        clock.now += 86_400
        assert store.validate("daily.test", [ONE]).ok
        for number in range(MAX_ENTRIES - 2):
            store.note(f"host{number}.evil.test", f"{VALID}; max-age=5184000", [ONE])
        assert store.known_host("once.test") is not None
        assert len(store) == MAX_ENTRIES
        store.note("last-straw.evil.test", f"{VALID}; max-age=5184000", [ONE])
        assert store.known_host("once.test") is None
        assert store.known_host("daily.test") is not None
        assert len(store) == MAX_ENTRIES

        # The flood comes again on more days than the pins were used: now they are the least used.
        names = [each.host for each in store.hosts() if each.host.endswith(".evil.test")]
        for _ in range(2):
            clock.now += 86_400
            for name in names:
                assert store.validate(name, [ONE]).ok
        store.note("one-more.evil.test", f"{VALID}; max-age=5184000", [ONE])
        assert store.known_host("daily.test") is None


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


# -- on real sockets --------------------------------------------------------------------------------------------------


@pytest.fixture(params=AGENTS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    agent = AGENTS[request.param]
    missing = agent.missing()
    if missing:
        pytest.skip(missing)
    with set_stage("a test", agent) as stage:
        yield stage


def test_pins_are_noted_and_refuse_until_they_expire(stage: Stage) -> None:
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    bank, alice = stage.site(HOST, honest, backups=1, max_age=days(10)), stage.client("Alice")
    first = alice.memory.visit(HOST, secret="s")  # roots are installed by Client.visits
    assert first.status is None
    assert first.failure
    event = alice.visits(bank)
    assert (event.outcome, event.noting) == ("served", "noted")
    known = alice.knows(bank)
    assert known is not None
    assert known.pins == (bank.key.pin, bank.backups[0].pin)
    assert known.expires_at == pytest.approx(stage.now + 10 * 86_400, abs=2)
    assert [each.host for each in alice.memory.known_hosts()] == [HOST]

    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless)
    stage.later(days(9.9))
    assert alice.visits(HOST).outcome == "protected"
    assert mallory.server.application_bytes == 0
    alice.memory.restart()
    assert alice.visits(HOST).outcome == "protected"
    stage.later(days(0.2))
    assert alice.visits(HOST).outcome == "fooled"
    assert b"the-token-of-alice" in mallory.server.received


def test_a_user_may_forget_a_host(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(10))
    alice = stage.client("Alice")
    assert alice.visits(bank).outcome == "served"
    bank.deploys(bank.makes_key())
    assert alice.visits(bank).outcome == "locked-out"
    assert alice.memory.forget(HOST)
    assert not alice.memory.forget(HOST)
    assert alice.visits(bank).outcome == "served"


def test_an_agent_without_pins_remembers_nothing(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(10))
    bob = stage.client("Bob", pins=False)
    event = bob.visits(bank)
    assert (event.outcome, event.noting) == ("served", None)
    assert bob.memory.known_hosts() == []


def test_roots_of_the_user(stage: Stage) -> None:
    """dynpin and wget2 hold them to the pins, Chromium notes and skips, Firefox does not even note."""
    corporate = stage.authority("Corporate CA", public=False)
    bank = stage.site(HOST, corporate, backups=1, max_age=days(10))
    alice = stage.client("Alice")
    noting = alice.visits(bank).noting
    assert noting == ("ignored" if stage.agent.name == "firefox" else "noted")
    stage.attacker("Mallory", takes=bank, certificate_of=corporate)
    bypasses = stage.agent.name in ("chromium", "firefox")
    assert alice.visits(HOST).outcome == ("fooled" if bypasses else "protected")


RAW = {
    "a malformed header": ("max-age=1000; pin-sha256", {"wget2": "removed"}, "ignored"),
    "max-age=0 alone": ("max-age=0", {"chromium": "ignored"}, "removed"),
    "no pin of the chain": (f"{VALID}; max-age=1000", {"wget2": "updated"}, "ignored"),
}


@pytest.mark.parametrize("case", RAW)
def test_what_a_raw_header_does(case: str, stage: Stage) -> None:
    value, otherwise, outcome = RAW[case]
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(10))
    alice = stage.client("Alice")
    assert alice.visits(bank).noting == "noted"
    bank.sends(value)
    expected = otherwise.get(stage.agent.name, outcome)
    assert alice.visits(bank).noting == expected
    assert (alice.knows(bank) is None) == (expected == "removed")


WGET2 = [vector for vector in HEADERS if "wget2" in vector.get("agents", {})]


@pytest.mark.parametrize("vector", WGET2, ids=lambda vector: vector["id"])
def test_where_the_vectors_tell_of_wget2_the_program_does_the_same(vector: Vector) -> None:
    agent = AGENTS["wget2"]
    missing = agent.missing()
    if missing:
        pytest.skip(missing)
    told = vector["agents"]["wget2"]
    with set_stage("a test", agent) as stage:
        bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(10))
        alice = stage.client("Alice")
        assert alice.visits(bank).noting == "noted"
        bank.sends(vector["value"])
        assert alice.visits(bank).noting == ("updated" if told == "accepts" else "removed")
        assert told == "accepts" or "removes" in told


def test_violation_reports(stage: Stage) -> None:
    """dynpin's wait until they are sent, Chromium's go at once and once an hour, the others send none."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    reports = stage.site("reports.test", honest)
    bank = stage.site(HOST, honest, backups=1, max_age=days(10), report_uri="https://reports.test/bank")
    alice, name = stage.client("Alice"), stage.agent.name

    def heard() -> int:
        reports.server.wait_idle()
        return reports.server.received.count(b"POST /bank ")

    assert alice.visits(bank).outcome == "served"
    stage.attacker("Mallory", takes=bank, certificate_of=careless)
    assert alice.visits(HOST).outcome == "protected"
    assert heard() == (1 if name == "chromium" else 0)
    sent = alice.memory.send_reports()
    assert [(each.report_uri, each.taken) for each in sent] == (
        [("https://reports.test/bank", True)] if name in ("dynpin", "chromium") else []
    )
    for wait, reported in ((minutes(30), 1), (hours(1), 2)):
        stage.later(wait)
        assert alice.visits(HOST).outcome == "protected"
        alice.memory.send_reports()
        assert heard() == (reported if name in ("dynpin", "chromium") else 0)


def test_chromium_sends_no_report_by_https_to_the_host_itself_and_two_hosts_make_no_loop() -> None:
    with set_stage("a test", AGENTS["chromium"]) as stage:
        honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
        one = stage.site("one.test", honest, backups=1)
        two = stage.site("two.test", honest, backups=1)
        for site, report_uri in ((one, "https://two.test/"), (two, "https://one.test/")):
            site.sends(f'pin-sha256="{site.key.pin}"; {VALID}; max-age=1000; report-uri="{report_uri}"')
        alice = stage.client("Alice")
        assert alice.visits(one).noting == alice.visits(two).noting == "noted"
        for site in (one, two):
            stage.attacker("Mallory", takes=site, certificate_of=careless)
        assert alice.visits("one.test").outcome == "protected"
        sent = [(each.report_uri, each.taken) for each in alice.memory.send_reports()]
        assert sent == [("https://two.test/", False), ("https://one.test/", False)]
