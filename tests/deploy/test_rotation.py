"""The rotation: its steps lock nobody out, and a step a second early does (RFC 7469 §2.5, §2.6, §4.3)."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import KnownPinnedHost, Pin, PublicKeyPins
from dynpin.deploy.guard import guard
from dynpin.deploy.rotation import (
    EMERGENCIES,
    Deployed,
    Emergency,
    Event,
    History,
    HistoryError,
    Planned,
    Published,
    Stage,
    advance,
    emergency,
    held,
    locked_out,
    plan,
    safe_at,
    status,
)
from dynpin.deploy.rotation.gantt import svg, terminal, timeline
from dynpin.noting import note
from dynpin.validation import validate
from tests.deploy.commands import dynpin
from tests.deploy.servers import make_site

DAY = 86400.0
MONTH = 30 * DAY
START = 1_795_478_400.0  # 2026-11-24T00:00:00Z
HOST = "www.example.com"


def pin(name: str) -> Pin:
    return Pin(hashlib.sha256(name.encode()).digest())


OLD, NEW, NEXT, CA = pin("old"), pin("new"), pin("next"), pin("ca")


def header(*pins: Pin, max_age: float = MONTH) -> PublicKeyPins:
    return PublicKeyPins(pins, int(max_age))


def history(*events: Event) -> History:
    kept = History(HOST)
    for event in events:
        kept = kept.with_event(event)
    return kept


def pinned(*pins: Pin, max_age: float = MONTH) -> History:
    """A host that has shown OLD and sent these pins since START."""
    return history(Published(START, header(*pins, max_age=max_age)), Deployed(START, (OLD, CA)))


# --- what clients may hold ----------------------------------------------------------------------------------------


def test_a_policy_is_held_until_max_age_after_its_last_response() -> None:
    kept = pinned(OLD, NEW).with_event(Published(START + DAY, header(OLD, NEXT, max_age=DAY)))
    first, second = held(kept, START + 10 * DAY)
    assert (first.last_at, first.until) == (START + DAY, START + DAY + MONTH)
    assert (second.last_at, second.until) == (None, START + 11 * DAY)
    assert [each.header for each in held(kept, START + DAY + MONTH)] == [second.header]


def test_a_header_that_unpins_or_is_none_ends_the_one_before() -> None:
    for event in (Published(START + DAY, None), Published(START + DAY, header(OLD, NEW, max_age=0))):
        [policy] = held(pinned(OLD, NEW).with_event(event), START + 2 * DAY)
        assert policy.until == START + DAY + MONTH


def test_the_cap_of_every_client_shortens_the_wait() -> None:
    kept = pinned(OLD, NEW, max_age=365 * DAY).with_event(Published(START, header(OLD, NEXT)))
    assert held(kept, START)[0].until == START + 365 * DAY
    assert held(kept, START, max_max_age=int(60 * DAY))[0].until == START + 60 * DAY


def test_a_chain_is_safe_when_the_last_policy_without_it_is_forgotten() -> None:
    kept = pinned(OLD, NEW)
    policies = held(kept, START)
    assert safe_at(policies, (NEW,), START) == START
    assert locked_out(policies, (NEXT,)) == policies
    assert safe_at(policies, (NEXT,), START) is None
    policies = held(kept.with_event(Published(START, None)), START)
    assert safe_at(policies, (NEXT,), START) == START + MONTH


def test_what_was_recorded_counts_where_the_clock_has_been_set_back_since() -> None:
    kept = pinned(OLD, NEW).with_event(Published(START + DAY, header(OLD, NEXT)))
    earlier = START - 365 * DAY
    first, second = held(kept, earlier)
    assert (first.until, second.until) == (earlier + MONTH, earlier + MONTH)
    assert locked_out(held(kept, earlier), (NEW,)) == (second,)
    assert not guard(kept, (NEW, CA), earlier).ok
    assert not guard(kept, (CA,), earlier, makes=header(OLD, NEW)).ok


def test_a_timeline_is_drawn_where_the_clock_has_been_set_back_since() -> None:
    kept = pinned(OLD, NEW).with_event(Planned(START + DAY, NEXT, (NEW,)))
    step = status(kept, START - 365 * DAY).step
    assert step is not None
    assert timeline(kept, START - 365 * DAY, [step]).end >= START + DAY + MONTH


def test_two_commands_at_the_same_time_are_both_recorded() -> None:
    kept = pinned(OLD, NEW)
    later = kept.with_event(Published(START + 5, header(OLD, NEXT))).with_event(Deployed(START + 4, (NEW, CA)))
    assert later.events[-1] == Deployed(START + 5, (NEW, CA))
    with pytest.raises(HistoryError, match="rotate repair"):
        later.with_event(Published(START - 60, None))


# --- the machine --------------------------------------------------------------------------------------------------


def test_the_walk_of_a_rotation_to_a_key_that_was_not_pinned() -> None:
    kept = pinned(OLD, NEW)
    kept = kept.with_event(Planned(START, NEXT, (NEW,)))
    assert status(kept, START).stage is Stage.PUBLISH
    kept = kept.with_event(advance(kept, START + DAY))
    assert kept.header is not None
    assert set(kept.header.pins) == {OLD, NEXT, NEW}

    published = START + DAY
    assert status(kept, published).stage is Stage.SPREADING
    with pytest.raises(ValueError, match="not before 2026-12-25T00:00:00Z"):
        advance(kept, published + MONTH - 1)
    assert status(kept, published + MONTH).stage is Stage.DEPLOY
    kept = kept.with_event(advance(kept, published + MONTH))
    assert kept.chain == (NEXT,)

    deployed = published + MONTH
    assert status(kept, deployed).stage is Stage.SETTLING
    with pytest.raises(ValueError, match="too early to retire"):
        advance(kept, deployed + MONTH - 1)
    assert status(kept, deployed + MONTH).stage is Stage.RETIRE
    kept = kept.with_event(advance(kept, deployed + MONTH))
    assert kept.header is not None
    assert kept.header.pins == (NEXT, NEW)
    assert status(kept, deployed + MONTH).stage is Stage.STEADY
    with pytest.raises(ValueError, match="no rotation"):
        advance(kept, deployed + MONTH)


def test_a_backup_that_was_pinned_all_along_may_be_deployed_as_soon_as_its_successor_is_published() -> None:
    kept = pinned(OLD, NEW).with_event(Planned(START + DAY, NEW, (NEXT,)))
    kept = kept.with_event(advance(kept, START + DAY))
    stands = status(kept, START + DAY)
    assert (stands.stage, stands.is_early) == (Stage.DEPLOY, False)


def test_the_plan_has_the_dates_that_the_machine_will_insist_on() -> None:
    kept = pinned(OLD, NEW)
    steps = plan(kept, NEXT, [NEW], START)
    assert [(step.name, step.at) for step in steps] == [
        ("publish", START),
        ("deploy", START + MONTH),
        ("retire", START + 2 * MONTH),
    ]
    kept = kept.with_event(Planned(START, NEXT, (NEW,)))
    for step in steps:
        event = advance(kept, step.at)
        if step.header is not None:
            assert event == Published(step.at, step.header)
        kept = kept.with_event(event)
        after = status(kept, step.at)
        assert after.stage is Stage.STEADY or after.is_early
    assert status(kept, steps[-1].at).stage is Stage.STEADY


def test_plans_that_would_harm_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no Backup Pin.*--backup"):
        plan(pinned(OLD, NEW), NEW, [], START)
    with pytest.raises(ValueError, match=r"no Backup Pin.*--backup"):
        plan(pinned(OLD, NEW), NEW, [NEW], START)
    with pytest.raises(ValueError, match="deployed already"):
        plan(pinned(OLD, NEW), OLD, [NEW], START)
    with pytest.raises(ValueError, match="record both"):
        plan(History(HOST), NEW, [NEXT], START)


def test_a_key_that_was_deployed_early_shows_in_the_status() -> None:
    kept = pinned(OLD, NEW).with_event(Deployed(START + DAY, (NEXT,)))
    stands = status(kept, START + 2 * DAY)
    assert [policy.header.pins for policy in stands.locked_out] == [(OLD, NEW)]
    assert not status(kept.with_event(Published(START + DAY, None)), START + DAY + MONTH).locked_out


class Client:
    """A client that keeps what the protocol notes, as the store does."""

    def __init__(self) -> None:
        self.entry: KnownPinnedHost | None = None

    def visit(self, server: History, now: float) -> bool:
        if self.entry is not None and self.entry.is_expired(now):
            self.entry = None
        ok = validate(HOST, self.entry, server.chain).ok
        if ok:
            noting = note(HOST, self.entry, server.header, server.chain, now, max_max_age=2**31)
            if noting.outcome in ("noted", "updated"):
                self.entry = noting.known_host
        return ok


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60)), max_size=60), st.sampled_from([DAY, MONTH]))
def test_whoever_follows_the_machine_locks_nobody_out(moves: list[tuple[int, int]], max_age: float) -> None:
    """Clients visit whenever they like; the operator does whatever the machine allows, whenever it allows it."""
    server, now = pinned(OLD, NEW, max_age=max_age), START
    clients = [Client() for _ in range(4)]
    keys = [pin(f"key {number}") for number in range(len(moves))]
    for who, days in moves:
        now += days * DAY / 4
        if who < len(clients):
            assert clients[who].visit(server, now)
            now += 1  # what is recorded from here on holds for later responses
        elif status(server, now).stage is Stage.STEADY:
            backups = [each for each in (server.header or header(OLD)).pins if each not in server.chain]
            server = server.with_event(Planned(now, keys.pop(), tuple(backups)))
        elif not status(server, now).is_early:
            server = server.with_event(advance(server, now))
        assert not status(server, now).locked_out


def test_a_second_early_is_too_early() -> None:
    kept = pinned(OLD, NEW).with_event(Planned(START, NEXT, (NEW,)))
    client = Client()
    published = START + DAY
    assert client.visit(kept, published - 1)  # the last response with the old header
    kept = kept.with_event(advance(kept, published))
    ready_at = status(kept, published).step
    assert ready_at is not None
    deployed = kept.with_event(Deployed(ready_at.at, (NEXT,)))
    assert not client.visit(deployed, ready_at.at - 1)
    # An entry is alive in the very second of its Effective Expiration Date (§2.3.3), and expired in the next.
    assert client.visit(deployed, ready_at.at)


# --- emergencies --------------------------------------------------------------------------------------------------


# What loses the deployed key; a CA that is distrusted takes only its certificate.
LOSSES: list[Emergency] = [kind for kind in EMERGENCIES if kind.startswith("key-")]


@pytest.mark.parametrize("kind", LOSSES)
def test_with_a_pinned_backup_at_hand_nobody_is_locked_out(kind: Emergency) -> None:
    steps = emergency(kind, pinned(OLD, NEW), [NEW], START)
    assert (steps[0].name, steps[0].key) == ("deploy", NEW)
    assert "nobody is locked out" in steps[0].why
    assert [step.name for step in steps if step.name == "silence"]  # no Backup Pin is left to announce
    assert steps[-1].name == "replenish"
    assert ("revoke" in [step.name for step in steps]) == (kind == "key-compromised")


def test_a_stolen_key_is_dropped_at_once_and_trusted_until_the_last_client_forgets() -> None:
    kept = pinned(OLD, NEW, max_age=60 * DAY)
    steps = {step.name: step for step in emergency("key-compromised", kept, [OLD, NEW, NEXT], START)}
    assert steps["deploy"].key == NEW
    assert steps["publish"].header == header(NEW, NEXT, max_age=60 * DAY)
    assert "2027-01-23" in steps["revoke"].why
    assert "replenish" not in steps


def test_a_distrusted_ca_leaves_the_key_usable() -> None:
    # It is on the server: nobody has to name it.
    for keys in ([], [NEW], [OLD, NEW]):
        steps = emergency("ca-distrusted", pinned(OLD, NEW), keys, START)
        assert [step.name for step in steps] == ["deploy", "keep"]
        assert (steps[0].key, "another CA" in steps[0].what) == (OLD, True)
        assert "nobody is locked out" in steps[0].why


def test_a_distrusted_ca_that_alone_was_pinned_needs_the_backup() -> None:
    kept = history(Published(START, header(CA, NEW)), Deployed(START, (OLD, CA)))
    assert emergency("ca-distrusted", kept, [OLD, NEW], START)[0].key == NEW


@pytest.mark.parametrize("kind", LOSSES)
def test_without_a_pinned_key_there_is_only_time(kind: Emergency) -> None:
    for keys in ([], [NEXT]):
        steps = emergency(kind, pinned(OLD, NEW), keys, START)
        names = [step.name for step in steps]
        assert names[0] == "search"
        assert ("choose" in names) == (kind == "key-compromised")
        assert (steps[-1].name, steps[-1].at) == ("recover", START + MONTH)
        assert f"dynpin hosts forget {HOST}" in next(step.what for step in steps if step.name == "tell")


# --- pictures -----------------------------------------------------------------------------------------------------


def test_the_timeline_in_the_terminal_and_as_svg() -> None:
    kept = pinned(OLD, NEW)
    steps = plan(kept, NEXT, [NEW], START + DAY)
    drawn = timeline(kept, START + DAY, steps)
    assert [bar.kind for bar in drawn.bars] == ["key", "key", "policy", "policy", "policy"]
    text = terminal(drawn, 80).plain
    assert max(len(line) for line in text.splitlines()) <= 80
    for piece in ("█", "░", "▲ now 2026-11-25", "▲ deploy 2026-12-25", "▲ retire 2027-01-24"):
        assert piece in text
    # A narrow window has no room to the right of the last mark, but has it to the left.
    narrow = terminal(drawn, 60).plain
    assert max(len(line) for line in narrow.splitlines() if "▲" in line) <= 60
    assert "retire 2027-01-24 ▲" in narrow
    root = ET.fromstring(svg(drawn))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "deploy 2026-12-25" in texts
    assert all(float(each.attrib["width"]) >= 0 for each in root.iter("{http://www.w3.org/2000/svg}rect"))


def test_a_timeline_of_minutes_tells_them() -> None:
    kept = pinned(OLD, NEW, max_age=300)
    steps = plan(kept, NEXT, [NEW], START + 60)
    drawn = timeline(kept, START + 60, steps)
    assert "▲ now 2026-11-24 00:01Z" in terminal(drawn, 80).plain
    assert "deploy 2026-11-24 00:06Z" in svg(drawn)


# --- the guard ----------------------------------------------------------------------------------------------------


def test_the_guard_passes_what_every_policy_names() -> None:
    for chain in ((OLD, CA), (NEW, pin("another ca"))):
        verdict = guard(pinned(OLD, NEW), chain, START)
        assert (verdict.ok, verdict.advice) == (True, ())
    assert guard(History(HOST), (NEXT,), START).ok


def test_the_guard_passes_an_issuer_s_pin_with_a_word_of_warning() -> None:
    verdict = guard(history(Published(START, header(CA, NEW))), (NEXT, CA), START)
    assert verdict.ok
    assert "issuer" in verdict.advice[0]


def test_the_guard_stops_a_key_that_nobody_expects() -> None:
    verdict = guard(pinned(OLD, NEW), (NEXT, CA), START)
    assert (verdict.ok, verdict.ready_at) == (False, None)
    assert "until 2026-12-24T00:00:00Z" in verdict.reason
    # The client has the new key by now, which it would keep from here on.
    assert "copy the key that the site shows over the new one" in " ".join(verdict.advice)
    assert "--reuse-key" in " ".join(verdict.advice)
    spread = pinned(OLD, NEW).with_event(Published(START + DAY, header(OLD, NEW, NEXT)))
    verdict = guard(spread, (NEXT, CA), START + 2 * DAY)
    assert (verdict.ok, verdict.ready_at) == (False, START + DAY + MONTH)
    assert guard(spread, (NEXT, CA), START + DAY + MONTH).ok


def test_the_guard_takes_the_header_that_is_sent(tmp_path: Path) -> None:
    chain = make_site(tmp_path, HOST).chain
    own = header(Pin.from_file(chain), NEW)
    assert dynpin("guard", str(chain), "--header", str(own)).exit_code == 0
    result = dynpin("guard", str(chain), "--header", str(header(OLD, NEW)), "--header", str(own), "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (1, False)
    for arguments in ((str(tmp_path / "none.pem"), "--header", str(own)), (str(chain), "--header", "nonsense=")):
        assert dynpin("guard", *arguments).exit_code == 2
    (tmp_path / "x.pem").write_text("x")
    assert dynpin("guard", str(tmp_path / "x.pem"), "--header", str(own)).exit_code == 2
