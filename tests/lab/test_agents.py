"""The user agents of the lab on real sockets: dynpin, the models of browsers, and the real wget2."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynpin.lab.agents import AGENTS
from dynpin.lab.stage import Stage, days, hours, minutes, set_stage
from tests.lab.test_models import HEADERS, HOST, VALID, Vector


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


def test_a_crash_right_after_a_visit(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(10))
    alice = stage.client("Alice")
    assert alice.visits(bank).noting == "noted"
    alice.memory.restart(crashed=True)
    assert (alice.knows(bank) is None) == (stage.agent.name == "firefox")
    assert alice.visits(bank).outcome == "served"


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
    """dynpin and wget2 check pins for these roots too; Chromium notes but does not check; Firefox notes nothing."""
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
def test_the_effect_of_a_raw_header(case: str, stage: Stage) -> None:
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
def test_wget2_agrees_with_the_vectors(vector: Vector) -> None:
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
    """dynpin's wait until they are sent, Chromium's are sent at once and once an hour, the others send none."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    reports = stage.site("reports.test", honest)
    bank = stage.site(HOST, honest, backups=1, max_age=days(10), report_uri="https://reports.test/bank")
    alice, name = stage.client("Alice"), stage.agent.name
    told = stage.timeline.events

    def heard() -> int:
        reports.server.wait_idle()
        return reports.server.received.count(b"POST /bank ")

    assert alice.visits(bank).outcome == "served"
    stage.attacker("Mallory", takes=bank, certificate_of=careless)
    assert alice.visits(HOST).outcome == "protected"
    assert heard() == (1 if name == "chromium" else 0)
    assert [(each.report_uri, each.taken) for each in alice.reports()] == (
        [("https://reports.test/bank", True)] if name == "dynpin" else []
    )
    assert (told[-1].text == "reports the violation to reports.test") == (name in ("dynpin", "chromium"))
    for wait, reported in ((minutes(30), 1), (hours(1), 2)):
        stage.later(wait)
        assert alice.visits(HOST).outcome == "protected"
        alice.memory.send_reports()
        assert heard() == (reported if name in ("dynpin", "chromium") else 0)


# A report-only policy that does not match the chain, its max-age, and the quotes of its report-uri.
REPORT_ONLY = {
    "by the RFC": ('report-uri="https://reports.test/r"', {"dynpin", "chromium"}),
    "a max-age that is none": ('max-age=soon; report-uri="https://reports.test/r"', {"dynpin"}),
    "single quotes": ("report-uri='https://reports.test/r'", {"chromium"}),
}


@pytest.mark.parametrize("case", REPORT_ONLY)
def test_a_report_only_policy(case: str, stage: Stage) -> None:
    directives, reporting = REPORT_ONLY[case]
    honest = stage.authority("Honest CA")
    bank, reports = stage.site(HOST, honest), stage.site("reports.test", honest)
    bank.server.headers = [("Public-Key-Pins-Report-Only", f"{VALID}; {directives}")]
    alice = stage.client("Alice")
    event = alice.visits(bank)
    assert (event.outcome, event.noting) == ("served", None)
    alice.reports()
    assert reports.server.received.count(b"POST /r ") == (stage.agent.name in reporting)


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
        told = [event.text for event in stage.timeline.events[-2:]]
        assert [text.partition(":")[0] for text in told] == [
            "tries to report the violation to two.test",
            "tries to report the violation to one.test",
        ]

        three = stage.site("three.test", honest)
        three.sends(f'pin-sha256="{three.key.pin}"; {VALID}; max-age=1000; report-uri="https://three.test/"')
        assert alice.visits(three).noting == "noted"
        stage.attacker("Mallory", takes=three, certificate_of=careless)
        assert alice.visits("three.test").outcome == "protected"
        assert stage.timeline.events[-1].outcome == "protected", "no report"


def test_a_private_window_leaves_nothing_and_sees_nothing(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(10))
    alice = stage.client("Alice")
    assert alice.visits(bank).noting == "noted"
    if not stage.has("private"):
        with pytest.raises(ValueError, match="has no private"):
            stage.client("Alice, in private", private=True)
        return
    private = stage.client("Alice, in private", device_of=alice, private=True)
    assert private.knows(bank) is None, "the usual pins are not seen in it"
    assert private.visits(bank).noting == "noted"
    private.restarts()
    assert private.knows(bank) is None, "its pins are gone with it"
    alice.restarts()
    assert alice.knows(bank) is not None


def test_static_pins_and_noted_ones(stage: Stage) -> None:
    """RFC 7469 §2.7 leaves the order open: dynpin's static pins come first, in browsers the noted ones do."""
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(200), allow_long_max_age=True)
    alice, name = stage.client("Alice"), stage.agent.name
    alice.comes_with(bank, *bank.keys)
    bank.backups.append(bank.makes_key())
    bank.pins()
    stands = name == "dynpin"
    assert alice.visits(bank).noting == {"dynpin": "ignored", "wget2": "updated"}.get(name, "noted")
    bank.deploys(bank.backups.pop())
    assert alice.visits(bank).outcome == ("locked-out" if stands else "served")
    alice.forgets(bank)
    if name != "wget2":  # it has one file for both
        # The browser's built-in pins are not forgotten; the old key is used again.
        bank.deploys(bank.keys[0])
        assert (alice.knows(bank) is None) == stands
    alice.restarts()
    stage.later(days(99))
    assert alice.knows(bank) is None, "built-in pins lapse with the build, in ten and in fourteen weeks"


def test_names_of_one_certificate_share_a_connection_in_a_browser_if_their_pins_allow_it(stage: Stage) -> None:
    honest = stage.authority("Honest CA")
    page = stage.site("*.page.test", honest, name="page.test", backups=1, max_age=days(10))
    other = stage.site("other.test", honest, backups=1, max_age=days(10))
    names = [f"{letter}.page.test" for letter in "abc"]
    for name in (*names, "d.page.test", "x.d.page.test"):
        stage.leads(name, page)
    alice = stage.client("Alice")
    alice.visits(other)  # installs the roots
    alice.memory.load([*names, "other.test"])
    page.server.wait_idle()
    assert page.server.connections == (1 if stage.agent.name in ("chromium", "firefox") else 3)
    assert [each.host for each in alice.memory.known_hosts()] == sorted([*names, "other.test"])

    # The pins of b.page.test refuse the new key, and the certificate does not cover the third name: neither joins.
    page.deploys(page.makes_key())
    before = page.server.connections
    alice.memory.load(["d.page.test", "b.page.test", "x.d.page.test"])
    page.server.wait_idle()
    assert page.server.connections == before + 3
    assert page.server.handshakes < page.server.connections
    assert alice.knows("x.d.page.test") is None
