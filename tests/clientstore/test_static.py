"""Static pins (RFC 7469 §2.7): headers, expiry, certificates, and the user's own decisions."""

from __future__ import annotations

import enum
import hashlib
import json
import logging
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import trustme

from dynpin import KnownPinnedHost, Pin, PinValidationError
from dynpin.clientstore import PinStore, enforce
from dynpin.clientstore.store.formats import read_toml
from dynpin.clientstore.store.lists import ask
from dynpin.clientstore.store.static import static_entry
from dynpin.clientstore.store.table import HostRow, entry_of, row_of
from dynpin.hosts import OnExpiry
from dynpin.recovery import NotedRecovery, Recovery

from ..cli.processes import called
from ..clock import BASE, Clock
from .world import HOST, World, leaf_pin, tls_world

LEAF, BACKUP, OTHER = (Pin(bytes([number]) * 32) for number in (1, 2, 5))
OURS, THEIRS = (Recovery(bytes([number]) * 32, f"https://lists.test/{number}/") for number in (1, 2))
HEADER = f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=1000'


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[PinStore]:
    with PinStore(tmp_path / "pins", clock=clock) as store:
        yield store


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, tmp_path: Path, clock: Clock) -> Iterator[World]:
    with tls_world(honest, rogue, tmp_path, clock=clock) as made:
        yield made


def shipped(host: str, pin: Pin = OTHER, at: float = 0.0) -> KnownPinnedHost:
    return static_entry(host, [pin], noted_at=at)


def digest(certificate: trustme.LeafCert) -> bytes:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())).digest()


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_a_header_neither_changes_nor_removes_a_living_static_entry(store: PinStore) -> None:
    store.pin("a.test", [LEAF, OTHER])
    for value in (HEADER, "max-age=0"):
        noting = store.note("a.test", value, [LEAF])
        assert (noting.outcome, noting.section) == ("ignored", "2.7")
    entry = store.entry("a.test")
    assert entry is not None
    assert entry.pins == (LEAF, OTHER)


def test_a_static_pin_replaces_what_was_noted(store: PinStore) -> None:
    store.note("a.test", HEADER, [LEAF])
    store.pin("a.test", [OTHER])
    assert not store.validate("a.test", [LEAF]).ok
    assert len(store) == 1


def test_the_nearest_entry_applies_wherever_it_came_from(store: PinStore) -> None:
    store.pin("test", [OTHER], include_subdomains=True)
    assert not store.validate("a.test", [LEAF]).ok
    store.pin("a.test", [LEAF])
    assert store.validate("a.test", [LEAF]).ok
    assert not store.validate("b.test", [LEAF]).ok


@pytest.mark.parametrize("name", ["*.bank.test", "*", "b*k.test", "127.0.0.1", "[::1]"])
def test_a_name_with_which_no_connection_is_compared_is_refused(store: PinStore, tmp_path: Path, name: str) -> None:
    reason = "would never be enforced" if "*" in name else "is an IP address"
    entry = KnownPinnedHost(name, (LEAF,), False, None, BASE, None, "static")
    for act in (
        lambda: store.pin(name, [LEAF]),
        lambda: store.merge([entry]),
        lambda: store.preload([entry], "shop"),
    ):
        with pytest.raises(ValueError, match=reason):
            act()
    assert store.hosts() == []
    for source in ("static", "header"):
        lines = tmp_path / "pins.jsonl"
        end = {"expires_at": "2030-01-01T00:00:00Z", "on_expiry": "release"}
        lines.write_text(json.dumps({"host": name, "pins": [str(LEAF)], "source": source, **end}))
        done = called("hosts", "import", lines, "--store", tmp_path / "imported")
        assert done.returncode == 2
        assert reason in done.stderr.decode()


# -- expiry -----------------------------------------------------------------------------------------------------------


class _Text(enum.StrEnum):
    REFUSE = "refuse"
    REPORTS = "https://reports.test/"


def test_texts_of_another_class_are_kept_as_the_texts_that_they_are(store: PinStore) -> None:
    store.pin("bank.test", [LEAF], on_expiry=cast("OnExpiry", _Text.REFUSE), report_uri=_Text.REPORTS)
    (kept,) = store.hosts()
    assert (kept.on_expiry, kept.report_uri) == ("refuse", "https://reports.test/")
    assert store.validate("bank.test", [LEAF]).ok


def test_a_row_is_the_same_in_every_python(monkeypatch: pytest.MonkeyPatch) -> None:
    # One Python writes a character as it is; another one, with older Unicode tables, escapes it.
    entry = static_entry("bank.test", [LEAF], noted_at=0.0, origin="shop \N{LATIN SMALL LETTER E WITH ACUTE}")
    row = row_of(entry)
    monkeypatch.setattr("builtins.repr", ascii)
    assert entry_of(row) == entry


def test_the_fields_of_a_row_are_the_columns_of_the_table(store: PinStore) -> None:
    columns = [name for _, name, *_ in store.database.select("PRAGMA table_info(hosts)")]
    assert list(HostRow._fields) == columns


def test_expired_static_pins_release_the_host_and_a_header_takes_their_place(store: PinStore, clock: Clock) -> None:
    store.pin("a.test", [OTHER], expires_at=clock.now + 10)
    clock.now += 11
    assert store.validate("a.test", [LEAF]).ok
    assert store.note("a.test", HEADER, [LEAF]).outcome == "noted"


def test_expired_static_pins_may_refuse_the_host_until_somebody_acts(store: PinStore, clock: Clock) -> None:
    store.pin("a.test", [LEAF], include_subdomains=True, expires_at=clock.now + 10, on_expiry="refuse")
    clock.now += 10
    assert store.validate("sub.a.test", [LEAF]).ok
    clock.now += 1
    for host in ("a.test", "sub.a.test"):
        refused = store.validate(host, [LEAF])
        assert (refused.ok, refused.section) == (False, "2.7")
        assert "expired" in refused.reason
        assert store.note(host, HEADER, [LEAF]).outcome == "ignored"
    assert [entry.host for entry in store.hosts()] == ["a.test"]
    assert len(store) == 1
    store.forget("a.test")
    assert store.validate("a.test", [LEAF]).ok


def test_the_error_of_an_expired_refusal_says_so(world: World, clock: Clock) -> None:
    world.store.pin(HOST, [leaf_pin(world.certificate)], expires_at=clock.now + 1, on_expiry="refuse")
    clock.now += 2
    context = enforce(world.plain_context(), world.store)
    with pytest.raises(PinValidationError, match="refuse the host from then on") as caught:
        context.wrap_socket(world.connect(world.site), server_hostname=HOST)
    assert f"dynpin hosts forget {HOST}" in str(caught.value)


# -- exact certificates -----------------------------------------------------------------------------------------------


def test_an_exact_certificate_connects_and_a_renewal_with_the_same_key_does_not(world: World) -> None:
    world.store.pin(HOST, certificates=[digest(world.certificate)])
    context = enforce(world.plain_context(), world.store)
    with context.wrap_socket(world.connect(world.site), server_hostname=HOST) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: bank.test\r\n\r\n")
        assert tls.recv(100).startswith(b"HTTP/1.1 200")
    world.site.show(world.backup)
    with pytest.raises(PinValidationError, match="renewed its certificate") as caught:
        context.wrap_socket(world.connect(world.site), server_hostname=HOST)
    assert f"certificate {digest(world.certificate).hex()}" in str(caught.value)


def test_the_hash_of_a_certificate_is_no_pin_of_a_key(store: PinStore, world: World) -> None:
    # People have pinned the hash of the whole certificate in headers: it must not begin to match.
    world.store.pin(HOST, [Pin(digest(world.certificate))])
    with pytest.raises(PinValidationError):
        enforce(world.plain_context(), world.store).wrap_socket(world.connect(world.site), server_hostname=HOST)


def test_pinning_a_certificate_warns_that_a_renewal_breaks_it(
    store: PinStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        store.pin("a.test", certificates=[bytes(32)])
    assert "renewal breaks" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "at least one pin"),
        ({"certificates": [b"short"]}, "32 bytes"),
        ({"pins": [LEAF], "on_expiry": "explode"}, "release"),
    ],
)
def test_a_static_pin_that_makes_no_sense_is_refused(store: PinStore, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        store.pin("a.test", **options)  # type: ignore[arg-type] # that is what is tested


# -- preloaded by a program -------------------------------------------------------------------------------------------


def test_preloading_holds_exactly_what_the_program_ships_now(store: PinStore) -> None:
    store.note("a.test", HEADER, [LEAF])
    assert store.preload([shipped("a.test"), shipped("b.test")], "app.toml") == 2
    assert not store.validate("a.test", [LEAF]).ok
    assert store.preload([shipped("b.test", BACKUP), shipped("c.test")], "app.toml") == 2
    assert [(entry.host, entry.pins, entry.origin) for entry in store.hosts()] == [
        ("b.test", (BACKUP,), "app.toml"),
        ("c.test", (OTHER,), "app.toml"),
    ]


def test_preloading_the_same_again_writes_nothing(store: PinStore, clock: Clock) -> None:
    from .test_store import writes

    assert writes(store, lambda: store.preload([shipped("a.test")], "app.toml")) == 1
    clock.now += 100
    assert writes(store, lambda: store.preload([shipped("a.test", at=clock.now)], "app.toml")) == 0


def test_preloading_does_not_change_what_the_user_pinned_or_forgot(store: PinStore) -> None:
    store.preload([shipped("a.test"), shipped("b.test")], "app.toml")
    assert store.forget("a.test")
    store.pin("b.test", [LEAF])
    assert store.preload([shipped("a.test"), shipped("b.test")], "app.toml") == 0
    assert store.known_host("a.test") is None
    assert store.validate("b.test", [LEAF]).ok
    store.pin("a.test", [BACKUP])  # by hand again: the override is over
    store.forget("a.test")
    assert store.preload([shipped("a.test")], "app.toml") == 1


def test_two_programs_preload_beside_each_other(store: PinStore) -> None:
    store.preload([shipped("a.test")], "one.toml")
    store.preload([shipped("b.test")], "two.toml")
    assert store.preload([], "one.toml") == 0
    assert [entry.host for entry in store.hosts()] == ["b.test"]


def test_a_program_ships_a_toml_file(store: PinStore, tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "pins.toml"
    file.write_text(f'[[static]]\nhost = "api.test"\npins = ["{LEAF}", "{BACKUP}"]\n')
    with file.open() as lines:
        assert store.preload(read_toml(lines, now=clock(), folder=tmp_path), file.name) == 1
    assert not store.validate("api.test", [OTHER]).ok


# -- imported by a person ---------------------------------------------------------------------------------------------


def noted(host: str, pin: Pin, at: float, lives: float) -> KnownPinnedHost:
    return KnownPinnedHost(host, (pin,), False, None, at, at + lives)


def test_merging_takes_the_newer_noting_and_leaves_static_pins(store: PinStore, clock: Clock) -> None:
    store.note("newer.test", HEADER, [LEAF])
    store.note("older.test", HEADER, [LEAF])
    store.pin("static.test", [LEAF])
    taken = store.merge(
        [
            noted("newer.test", OTHER, clock.now - 5, 100),
            noted("older.test", OTHER, clock.now + 0.5, 100),
            noted("static.test", OTHER, clock.now, 100),
            noted("expired.test", OTHER, clock.now - 200, 100),
            noted("fresh.test", OTHER, clock.now - 5, 100),
            shipped("by-hand.test"),
        ]
    )
    assert taken == 2
    assert [entry.host for entry in store.hosts() if entry.pins == (OTHER,)] == ["by-hand.test", "fresh.test"]
    clock.now += 1
    assert store.merge([noted("older.test", OTHER, clock.now, 100)]) == 1


@pytest.mark.parametrize("change", ["none", "removed", "damaged"])
@pytest.mark.parametrize("named", [None, THEIRS], ids=["no root", "another root"])
def test_a_merged_noting_keeps_the_root_as_a_header_does(
    store: PinStore, clock: Clock, named: Recovery | None, change: str
) -> None:
    root = f'recovery-root="{OURS.root_text}"; recovery-uri="{OURS.uri}"'
    store.note("a.test", f"{HEADER}; {root}", [LEAF])
    refused = store.entry("a.test")
    assert refused is not None
    store.database.write(lambda connection: ask(connection, [refused], clock.now))
    if change == "removed":
        store.note("a.test", "max-age=0", [LEAF])
    if change == "damaged":
        store.database.write(lambda connection: connection.execute("UPDATE hosts SET pins = x'00'"))
    clock.now += 1
    brought = replace(noted("a.test", OTHER, clock.now, 10), recovery=None if named is None else NotedRecovery(named))
    assert store.merge([brought]) == 1
    assert store.database.select("SELECT host FROM asked") == []
    entry = store.entry("a.test")
    assert entry is not None
    assert entry.pins == (OTHER,)
    if change == "damaged":
        assert entry.recovery == brought.recovery
    else:
        # It also ends no earlier than before.
        assert entry.recovery == NotedRecovery(OURS, until=clock.now - 1 + 1000)


@pytest.mark.parametrize("newest_first", [False, True])
def test_of_two_entries_for_a_host_the_newest_counts_and_a_static_one_before_all(
    store: PinStore, clock: Clock, newest_first: bool
) -> None:
    entries = [
        *(noted("a.test", pin, clock.now - age, 100) for pin, age in ((OTHER, 9), (BACKUP, 5), (LEAF, 1))),
        *(noted("b.test", OTHER, clock.now - 1, 100), shipped("b.test", LEAF)),
    ]
    store.merge(reversed(entries) if newest_first else entries)
    assert [(known.host, known.pins) for known in store.hosts()] == [("a.test", (LEAF,)), ("b.test", (LEAF,))]


def test_a_bad_entry_in_the_middle_changes_nothing(store: PinStore, clock: Clock) -> None:
    def entries() -> Iterator[KnownPinnedHost]:
        for number in range(20_000):
            yield noted(f"h{number}.test", LEAF, clock.now, 100)
        raise ValueError("the last line")

    with pytest.raises(ValueError, match="the last line"):
        store.merge(entries())
    assert store.hosts() == []


def test_an_imported_max_age_of_a_year_is_capped(store: PinStore, clock: Clock) -> None:
    assert store.merge([noted("a.test", LEAF, clock.now, 31_536_000), noted("b.test", LEAF, clock.now + 1e9, 10)]) == 2
    taken, future = store.hosts()
    assert taken.expires_at == clock.now + store.max_max_age
    assert future.noted_at == clock.now
