"""RFC 7469 §2.3 and §2.5: what one response does to a Known Pinned Host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dynpin import InvalidHeader, KnownPinnedHost, Noting, Pin, PublicKeyPins, Validation
from dynpin.hosts import applicable, canonical_host, superdomains
from dynpin.noting import DEFAULT_MAX_MAX_AGE, note
from dynpin.validation import validate
from tests.clock import BASE, Clock
from tests.scenarios import Scenario, each_scenario, run

LEAF, ISSUER, BACKUP, OTHER, STRANGER = (Pin(bytes([number]) * 32) for number in range(1, 6))
CHAIN = (LEAF, ISSUER)
HEADER = PublicKeyPins((LEAF, BACKUP), 1000, True, "https://r.example/")
OWN = KnownPinnedHost("bank.test", (LEAF, OTHER), False, None, BASE - 500, BASE + 500)
ABOVE = replace(OWN, host="test", include_subdomains=True)


class DictStore:
    """The smallest thing that keeps Known Pinned Hosts: the pure functions around a dict."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.entries: dict[str, KnownPinnedHost] = {}

    def note(self, host: str, value: str | PublicKeyPins, chain: Sequence[Pin]) -> Noting:
        name = canonical_host(host)
        header: PublicKeyPins | InvalidHeader
        try:
            header = PublicKeyPins.parse(value) if isinstance(value, str) else value
        except InvalidHeader as error:
            header = error
        former = self.entries.get(name)
        noting = note(name, self.known_host(name), header, chain, self.clock(), former=former)
        entry = noting.known_host or noting.remains
        if entry is not None:
            self.entries[name] = entry
        return noting

    def validate(self, host: str, chain: Sequence[Pin]) -> Validation:
        return validate(canonical_host(host), self.known_host(host), chain)

    def known_host(self, host: str) -> KnownPinnedHost | None:
        return applicable(self.entries.values(), canonical_host(host), self.clock())

    def forget(self, host: str) -> bool:
        entry = self.entries.pop(canonical_host(host), None)
        return entry is not None and not entry.is_released(self.clock())

    def count(self) -> int:
        return sum(not entry.is_released(self.clock()) for entry in self.entries.values())

    def reopen(self) -> None:
        self.entries = dict(self.entries)


@each_scenario
def test_scenario(scenario: Scenario) -> None:
    run(scenario, DictStore)


# -- each condition by itself ------------------------------------------------------------------------------------------


def test_a_valid_pinning_header_is_noted_exactly() -> None:
    noting = note("bank.test", None, HEADER, CHAIN, BASE)
    assert (noting.outcome, noting.section) == ("noted", "2.5")
    assert noting.known_host == KnownPinnedHost(
        "bank.test", (LEAF, BACKUP), True, "https://r.example/", noted_at=BASE, expires_at=BASE + 1000, source="header"
    )
    assert noting.reason == "bank.test is pinned to 2 keys for 1000 seconds"


def test_the_entry_of_a_known_host_is_replaced_exactly() -> None:
    header = PublicKeyPins((ISSUER, BACKUP), 2000)
    noting = note(
        "bank.test", replace(OWN, include_subdomains=True, report_uri="https://r.example/"), header, CHAIN, BASE
    )
    assert noting.outcome == "updated"
    assert noting.known_host == KnownPinnedHost("bank.test", (ISSUER, BACKUP), False, None, BASE, BASE + 2000)


IGNORED: dict[
    str, tuple[str, KnownPinnedHost | None, PublicKeyPins | InvalidHeader | None, Sequence[Pin], str, str]
] = {
    "IPv4": ("192.0.2.7", None, HEADER, CHAIN, "2.3.3", "only names are pinned"),
    "IPv6": ("[2001:db8::1]", None, HEADER, CHAIN, "2.3.3", "only names are pinned"),
    "no header": ("bank.test", OWN, None, CHAIN, "2.3.1", "sent no Public-Key-Pins header"),
    "malformed": (
        "bank.test",
        OWN,
        InvalidHeader("syntax", "',' there", 9),
        CHAIN,
        "2.1",
        "',' there (syntax, at char",
    ),
    "report-only": (
        "bank.test",
        None,
        PublicKeyPins((LEAF, BACKUP), report_only=True),
        CHAIN,
        "2.3.3",
        "evaluated and never cached",
    ),
    "TLS with errors": ("bank.test", None, HEADER, (), "2.5", "no verified certificate chain"),
    "Pin Validation failed": ("bank.test", OWN, HEADER, (STRANGER,), "2.5", "failed Pin Validation"),
    "failed a superdomain's": ("bank.test", ABOVE, HEADER, (STRANGER,), "2.5", "failed Pin Validation"),
    "static": ("bank.test", replace(OWN, source="static"), HEADER, CHAIN, "2.7", "static pins"),
    "no pin": ("bank.test", OWN, PublicKeyPins((), 1000), CHAIN, "2.5", "names no pin"),
    "no live pin": ("bank.test", OWN, PublicKeyPins((BACKUP, OTHER), 1000), CHAIN, "2.5", "none of the pins"),
    "no Backup Pin": ("bank.test", OWN, PublicKeyPins((LEAF, ISSUER), 1000), CHAIN, "2.5", "no Backup Pin"),
    "one pin": ("bank.test", OWN, PublicKeyPins((LEAF,), 1000), CHAIN, "2.5", "no Backup Pin"),
    "nothing to remove": ("bank.test", None, PublicKeyPins((), 0), CHAIN, "2.3.1", "it has no entry of its own"),
    "not its own to remove": ("bank.test", ABOVE, PublicKeyPins((), 0), CHAIN, "2.3.1", "it has no entry of its own"),
    "unknown algorithms, no entry": (
        "bank.test",
        ABOVE,
        PublicKeyPins((), 9, other_pins=(("sha512", "x"),)),
        CHAIN,
        "2.1.1",
        "it has no entry of its own",
    ),
}


@pytest.mark.parametrize("name", list(IGNORED))
def test_ignored(name: str) -> None:
    host, known, header, chain, section, reason = IGNORED[name]
    noting = note(host, known, header, chain, BASE)
    assert (noting.outcome, noting.section, noting.known_host) == ("ignored", section, None)
    assert reason in noting.reason


@pytest.mark.parametrize(
    ("header", "section"),
    [
        (PublicKeyPins((LEAF, BACKUP), 0), "2.3.1"),
        (PublicKeyPins((LEAF, BACKUP), 0, include_subdomains=True), "2.3.1"),
        (PublicKeyPins((STRANGER,), 0), "2.3.1"),
        (PublicKeyPins((), 0), "2.3.1"),
        (PublicKeyPins((), 1000, other_pins=(("sha512", "x"),)), "2.1.1"),
    ],
)
def test_removed(header: PublicKeyPins, section: str) -> None:
    noting = note("bank.test", OWN, header, CHAIN, BASE)
    assert (noting.outcome, noting.section, noting.known_host) == ("removed", section, None)
    assert note("bank.test", OWN, header, (STRANGER,), BASE).outcome == "ignored"


def test_max_age_is_capped() -> None:
    header = PublicKeyPins((LEAF, BACKUP), 2**31)
    noting = note("bank.test", None, header, CHAIN, BASE)
    assert noting.known_host is not None
    assert noting.known_host.expires_at == BASE + DEFAULT_MAX_MAX_AGE
    assert DEFAULT_MAX_MAX_AGE == 60 * 86400
    assert "for 5184000 seconds, capped from 2147483648" in noting.reason
    noting = note("bank.test", None, header, CHAIN, BASE, max_max_age=7)
    assert noting.known_host is not None
    assert noting.known_host.expires_at == BASE + 7


# -- general rules -----------------------------------------------------------------------------------------------------

PINS = [LEAF, ISSUER, BACKUP, OTHER, STRANGER]
HOSTS = ["com", "example.com", "badexample.com", "a.example.com", "b.a.example.com", "4", "192.0.2.4"]

chains = st.lists(st.sampled_from(PINS), max_size=3)
headers = st.builds(
    PublicKeyPins,
    st.lists(st.sampled_from(PINS), max_size=4).map(tuple),
    st.sampled_from([0, 1, 100, 1000, 2**31]),
    st.booleans(),
    st.sampled_from([None, "https://r.example/"]),
    report_only=st.sampled_from([False, False, False, True]),
    other_pins=st.sampled_from([(), (), (("sha512", "x"),)]),
)
responses = st.one_of(headers, st.just(InvalidHeader("syntax", "no header")), st.none())
knowns = st.sampled_from([None, OWN, ABOVE, replace(OWN, source="static"), replace(ABOVE, source="static")])


@given(knowns, responses, chains, st.integers(1, 10**7))
def test_what_is_noted(
    known: KnownPinnedHost | None, header: PublicKeyPins | InvalidHeader | None, chain: list[Pin], cap: int
) -> None:
    noting = note("bank.test", known, header, chain, BASE, max_max_age=cap)
    entry = noting.known_host
    assert (entry is not None) == (noting.outcome in ("noted", "updated"))
    if noting.outcome != "ignored":
        # An error-free TLS connection, Pin Validation included.
        assert chain
        assert validate("bank.test", known, chain).ok
    if noting.outcome in ("updated", "removed"):
        assert known == OWN
    if entry is not None:
        assert isinstance(header, PublicKeyPins)
        assert header.max_age is not None
        # What is noted validates with the chain that it was noted with, has a Backup Pin, and expires after max-age.
        assert validate("bank.test", entry, chain).ok
        assert set(entry.pins) - set(chain)
        assert entry.host == "bank.test"
        age = min(header.max_age, cap)
        assert not entry.is_expired(BASE + age)
        assert entry.is_expired(BASE + age + 0.001)


class Responses(RuleBasedStateMachine):
    """Responses of hosts above, below and beside each other, in any order, while time passes."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.store = DictStore(self.clock)

    @rule(seconds=st.sampled_from([1, 99, 100, 101, 1000, 10**7]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(host=st.sampled_from(HOSTS))
    def forget(self, host: str) -> None:
        entry = self.store.entries.get(host)
        assert self.store.forget(host) is (entry is not None and not entry.is_released(self.clock.now))
        assert host not in self.store.entries

    @rule(host=st.sampled_from(HOSTS), header=headers, chain=chains)
    def respond(self, host: str, header: PublicKeyPins, chain: list[Pin]) -> None:
        before, known = dict(self.store.entries), self.store.known_host(host)
        validation = self.store.validate(host, chain)
        noting = self.store.note(host, header, chain)
        after = self.store.entries

        # §2.3.3: no superdomain's metadata is modified, nor anybody else's.
        assert {name: after[name] for name in after if name != host} == {n: before[n] for n in before if n != host}
        # §2.5: a connection that failed Pin Validation changes nothing at all; nor does report-only, or an address.
        if not validation.ok or not chain or header.report_only or host == "192.0.2.4":
            assert after == before
            assert noting.outcome == "ignored"
        if noting.outcome == "noted":
            assert known is None or known.host in superdomains(host)
        if noting.outcome in ("noted", "updated"):
            assert self.store.known_host(host) == after[host]
            assert self.store.validate(host, chain).ok
        if noting.outcome == "removed":
            assert known == before[host]
            assert after[host].is_released(self.clock.now)
            assert after[host].pins == ()

    @rule(host=st.sampled_from(HOSTS), chain=chains)
    def connect(self, host: str, chain: list[Pin]) -> None:
        before = dict(self.store.entries)
        validation = self.store.validate(host, chain)
        assert self.store.entries == before
        known = validation.known_host
        if known is not None:
            assert not known.is_expired(self.clock.now)
            assert known.host == host or (known.include_subdomains and host.endswith("." + known.host))
            assert host != "192.0.2.4"
        assert validation.ok == (known is None or not set(known.pins).isdisjoint(chain))


TestResponses = Responses.TestCase
