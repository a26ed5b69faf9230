"""How many hosts are noted: an attacker fills only his own share, refusals are shown, and nothing is evicted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import Pin
from dynpin.clientstore import PinStore

from ..cli.processes import called
from ..clock import Clock

LEAF, BACKUP, OTHER = (Pin(bytes([number]) * 32) for number in (1, 2, 5))
HEADER = f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=1000; includeSubDomains'


@pytest.fixture
def store(clock: Clock) -> Iterator[PinStore]:
    with PinStore(":memory:", clock=clock, max_hosts_per_domain=20, max_hosts=60) as store:
        yield store


def visit(store: PinStore, *hosts: str) -> list[str]:
    return [store.note(host, HEADER, [LEAF]).outcome for host in hosts]


def test_a_flood_fills_its_own_domain_and_evicts_nobody(store: PinStore) -> None:
    assert visit(store, "bank.example") == ["noted"]
    assert visit(store, *(f"h{n}.evil.co.uk" for n in range(30))) == ["noted"] * 20 + ["ignored"] * 10
    refused = store.note("h29.evil.co.uk", HEADER, [LEAF])
    assert refused.reason == (
        "h29.evil.co.uk was not noted: the store notes at most 20 hosts below evil.co.uk, and evicts none of them"
    )
    assert visit(store, "h1.evil.co.uk") == ["updated"]
    assert visit(store, "h1.neighbour.co.uk", "another.example", "evil.co.uk") == ["noted"] * 3
    assert not store.validate("www.bank.example", [OTHER]).ok


def test_one_neighbour_keeps_nobody_else_of_the_same_domain_from_being_learnt(store: PinStore) -> None:
    # In a closed network all names may be below one registrable domain, and each machine owns its own name.
    for depth in range(1, 4):
        names = [".".join([f"h{n}", *("x" * (depth - 1)), "evil.corp.test"]) for n in range(30)]
        assert "ignored" in visit(store, *names)
    assert visit(store, *(f"service{n}.corp.test" for n in range(10))) == ["noted"] * 10
    assert len([known for known in store.hosts() if known.host.endswith(".evil.corp.test")]) == 2  # a tenth of 20


def test_many_neighbours_leave_half_of_a_domain_to_the_hosts_next_to_it(store: PinStore) -> None:
    visit(store, *(f"h{n}.evil{m}.corp.test" for m in range(30) for n in range(3)))
    assert len(store) == 10
    assert visit(store, *(f"service{n}.corp.test" for n in range(10))) == ["noted"] * 10
    assert visit(store, "one-more.corp.test") == ["ignored"]


def test_own_domains_have_no_share(clock: Clock) -> None:
    with PinStore(":memory:", clock=clock, max_hosts_per_domain=5, own_domains=["corp.test"]) as store:
        assert visit(store, *(f"h{n}.svc.corp.test" for n in range(40))) == ["noted"] * 40
        assert visit(store, *(f"h{n}.evil.test" for n in range(6))) == ["noted"] * 5 + ["ignored"]


def test_expired_entries_make_room_and_are_kept_until_then(store: PinStore, clock: Clock) -> None:
    visit(store, *(f"h{n}.one.example" for n in range(20)), "a.two.example")
    assert visit(store, "late.one.example") == ["ignored"]
    clock.now += 2_000
    assert len(store) == 0
    assert len(store.hosts(include_expired=True)) == 21
    assert visit(store, "late.one.example") == ["noted"]
    assert [known.host for known in store.hosts(include_expired=True)] == ["a.two.example", "late.one.example"]


def test_a_full_store_refuses_and_says_so(store: PinStore) -> None:
    visit(store, *(f"h{n}.d{m}.example" for m in range(3) for n in range(20)))
    assert len(store) == 60
    refused = store.note("bank.example", HEADER, [LEAF])
    assert "at most 60 hosts in all" in refused.reason


def test_a_damaged_note_of_the_last_purge_keeps_nobody_from_refusing(store: PinStore) -> None:
    visit(store, *(f"h{n}.example" for n in range(60)))
    store.database.write(lambda connection: connection.execute("UPDATE facts SET value = 'x' WHERE name = 'purged_at'"))
    store.database.write(lambda connection: connection.execute("INSERT OR IGNORE INTO facts VALUES ('purged_at', 'x')"))
    assert visit(store, "late.example") == ["ignored"]


def test_pins_of_a_person_are_not_counted_and_never_removed(store: PinStore, clock: Clock) -> None:
    for number in range(50):
        store.pin(f"p{number}.one.example", [LEAF], expires_at=clock.now + 1)
    assert visit(store, *(f"h{n}.one.example" for n in range(20))) == ["noted"] * 20
    clock.now += 2_000
    assert visit(store, *(f"g{n}.one.example" for n in range(20))) == ["noted"] * 20
    assert len([known for known in store.hosts(include_expired=True) if known.source == "static"]) == 50


def test_refusals_are_kept_for_a_person_to_see(tmp_path: Path, clock: Clock) -> None:
    with PinStore(tmp_path / "pins.sqlite", clock=clock, max_hosts_per_domain=1) as store:
        visit(store, "a.one.example", "b.one.example", "c.one.example", "a.two.example")
        clock.now += 7_200
        visit(store, "a.two.example", "b.two.example", "a.three.example")
    with PinStore(tmp_path / "pins.sqlite", clock=clock) as store:
        assert [(refusal.scope, refusal.host, refusal.bound) for refusal in store.refusals()] == [
            ("two.example", "b.two.example", 1),
            ("one.example", "b.one.example", 1),
        ]


@pytest.mark.parametrize(
    "damage", ["host = CAST(x'ff' AS TEXT)", "scope = x'ff'", "bound = 'x'", "refused_at = 'x'", "refused_at = 9e999"]
)
def test_a_damaged_refusal_hides_no_other_and_stops_no_command(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "pins.sqlite"
    with PinStore(file, max_hosts_per_domain=1) as store:
        visit(store, "a.one.example", "b.one.example", "a.two.example", "b.two.example")
        change = f"UPDATE refusals SET {damage} WHERE scope = 'two.example'"
        store.database.write(lambda connection: connection.execute(change).rowcount)
    with PinStore(file) as store:
        assert "b.one.example" in [refusal.host for refusal in store.refusals()]
    for command in ("list", "check"):
        for form in ((), ("--json",)):
            done = called("hosts", command, "--store", file, *form)
            assert done.returncode == 0, done.stderr
            assert b"b.one.example" in done.stdout + done.stderr


labels = st.sampled_from(["a", "b", "evil", "h-1", "h.x", "x"])


@given(st.lists(st.lists(labels, min_size=1, max_size=4), max_size=40))
def test_no_stranger_keeps_a_host_next_to_the_domain_from_being_noted(names: list[list[str]]) -> None:
    """Whatever is noted below one name of a domain, half of the domain's share is reserved for its direct hosts."""
    with PinStore(":memory:", max_hosts_per_domain=6, clock=lambda: 1.0) as store:
        for name in names:
            visit(store, ".".join([*name, "evil", "corp.test"]))
        assert visit(store, "s1.corp.test", "s2.corp.test", "s3.corp.test") == ["noted"] * 3
