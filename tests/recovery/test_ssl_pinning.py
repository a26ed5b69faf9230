"""A list of ssl-pinning is followed: what it pins, what is refused, and how it meets what the store has."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import pytest

from dynpin import Pin
from dynpin.clientstore.store import lists
from tests.recovery.conftest import HOST, Bank
from tests.recovery.ssl_pinning_lists import DAY, FIRST, OTHER, PUBLIC, SECOND, List, item, pinned, signed


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look may take its longest from the start: a busy machine is not a fault of the list's."""
    monkeypatch.setattr(lists, "_FIRST_LOOK", lists._LONGEST_LOOK)


@pytest.fixture
def listed(bank: Bank) -> List:
    """Followed, with the bank's pins."""
    made = List(bank)
    made.publish(*(item(HOST, pin, bank.clock()) for pin in bank.pins))
    look = bank.store.follow(made.uri, PUBLIC)
    assert (look.is_followed, str(look.outcome).endswith(f"gave {HOST} other pins")) == (True, True), look
    return made


# -- what it does ------------------------------------------------------------------------------------------------------


def test_it_pins_before_the_first_visit(bank: Bank, listed: List) -> None:
    known = bank.store.known_host(HOST)
    assert known is not None
    assert (known.source, known.origin, set(known.pins)) == ("static", listed.uri, set(bank.pins))
    assert not bank.refused()
    bank.lose_keys()
    assert bank.refused()


def test_a_refusal_has_it_looked_at_at_once_and_heals(bank: Bank, listed: List) -> None:
    bank.lose_keys()
    bank.later()
    listed.publish(*(item(HOST, pin, bank.clock()) for pin in bank.new_pins))
    assert bank.heals()
    (look,) = bank.store.looks()
    assert look.next_look_at is not None
    assert look.next_look_at - bank.clock() > 0.8 * DAY, "what was asked for is done"


def test_it_is_looked_at_daily(bank: Bank, listed: List) -> None:
    (look,) = bank.store.looks()
    assert look.looked_at is not None
    assert look.next_look_at is not None
    assert 0.9 * DAY <= look.next_look_at - look.looked_at <= 1.1 * DAY
    assert bank.publisher.paths() == ["/pins.json"]
    listed.follow()
    assert bank.publisher.paths() == ["/pins.json"] * 2


def test_as_its_server_writes_it(bank: Bank) -> None:
    """Nanoseconds and an offset of Go's, the pattern for a host that has none, and members of the server's own."""
    now = datetime.fromtimestamp(bank.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    more = {"app_id": "a", "last_error": "dial tcp: i/o timeout", "file": "f"}
    keys = [
        {"date": f"{now}.123456789+00:00", "domainName": f"*.{HOST}", "expire": 999, "fqdn": HOST, "key": str(FIRST)},
        {"date": f"{now}Z", "domainName": "Exact.Test", "expire": 5, "key": f"sha256/{FIRST}", **more},
        {"date": f"{now}Z", "domainName": "**.deep.test", "expire": 5, "key": str(SECOND)},
        {"date": f"{now}Z", "domainName": "deep.test", "expire": 9, "key": str(FIRST)},
        {"date": f"{now}Z", "domainName": "gone.test", "key": str(FIRST)},
    ]
    listed = List(bank)
    listed.publish(data=signed(keys))
    bank.store.follow(listed.uri, PUBLIC)
    held = {each.host: (set(each.pins), each.include_subdomains) for each in bank.store.hosts()}
    assert held == {
        HOST: ({FIRST}, True),
        "exact.test": ({FIRST}, False),
        "deep.test": ({FIRST, SECOND}, True),
    }


def test_a_newer_list_takes_the_place_of_the_older(bank: Bank, listed: List) -> None:
    now = bank.clock()
    listed.publish(item(HOST, FIRST, now), item("new.test", SECOND, now))
    listed.follow()
    assert (pinned(bank.store), pinned(bank.store, "new.test")) == ({FIRST}, {SECOND})
    listed.publish(item("new.test", SECOND, now))  # dated as the last one
    listed.follow()
    assert (pinned(bank.store), pinned(bank.store, "new.test")) == (set(), {SECOND})


@pytest.mark.parametrize(
    ("expires", "lasts"),
    [((DAY, 5 * DAY), 5 * DAY), ((400 * DAY,), 60 * DAY), ((DAY, -DAY, 0), DAY)],
    ids=["the last of its keys", "sixty days", "keys that have expired are left out"],
)
def test_each_host_has_the_end_of_its_keys(bank: Bank, expires: tuple[int, ...], lasts: int) -> None:
    listed, now = List(bank), int(bank.clock())
    listed.publish(*(item(HOST, Pin(bytes([n]) * 32), now, expire) for n, expire in enumerate(expires)))
    bank.store.follow(listed.uri, PUBLIC)
    known = bank.store.known_host(HOST)
    assert known is not None
    assert known.expires_at is not None
    assert len(known.pins) == sum(each > 0 for each in expires)
    # The cap counts from the look, which was some seconds later.
    assert now + lasts <= known.expires_at <= now + lasts + (600 if lasts == 60 * DAY else 0)


def test_a_list_that_is_replayed_for_ever_lasts_until_its_keys_end(bank: Bank) -> None:
    listed = List(bank)
    listed.publish(item(HOST, FIRST, bank.clock(), 7 * DAY))
    bank.store.follow(listed.uri, PUBLIC)
    for _ in range(3):
        listed.follow()
        assert pinned(bank.store) == {FIRST}
    assert "every key in it has expired" in listed.follow()
    assert pinned(bank.store) == set()


def test_it_does_not_replace_what_the_user_pins_or_forgets(bank: Bank, listed: List) -> None:
    bank.store.pin(HOST, [SECOND])
    listed.publish(item(HOST, FIRST, bank.clock()), item("shop.test", FIRST, bank.clock()))
    listed.follow()
    assert pinned(bank.store) == {SECOND}
    bank.store.forget("shop.test")
    listed.follow()
    assert pinned(bank.store, "shop.test") == set()


def test_it_replaces_what_was_noted(bank: Bank) -> None:
    bank.visit(bank.header())
    listed = List(bank)
    listed.publish(item(HOST, FIRST, bank.clock()))
    bank.store.follow(listed.uri, PUBLIC)
    assert pinned(bank.store) == {FIRST}


# -- what is refused ---------------------------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    loaded = json.loads(data)
    loaded["payload"]["keys"][0]["expire"] += 1
    return json.dumps(loaded).encode()


REFUSED: dict[str, tuple[Callable[[float], bytes], str]] = {
    "the key of somebody else": (lambda at: signed([item(HOST, FIRST, at)], OTHER), "not from the key that you trust"),
    "a changed payload": (lambda at: flipped(signed([item(HOST, FIRST, at)])), "not from the key that you trust"),
    "an older list": (lambda at: signed([item(HOST, FIRST, at - 3 * DAY)]), "is before that of the last accepted list"),
    "a list that is to come": (
        lambda at: signed([item(HOST, FIRST, at + 5 * DAY)]),
        "its owner's clock or yours is wrong",
    ),
    "an expired list": (lambda at: signed([item(HOST, FIRST, at, DAY)]), "every key in it has expired"),
    "no key": (lambda _: signed([]), "has no keys"),
    "keys that are none": (lambda _: signed({"a": 1}), "has no keys"),
    "a key that is none": (lambda _: signed([7]), "keys[0] is not a JSON object"),
    "no pin": (lambda at: signed([item(HOST, "abc", at)]), "keys[0]: "),
    "no text for a pin": (lambda at: signed([{**item(HOST, FIRST, at), "key": 5}]), "key is missing or is not text"),
    "no pattern": (lambda at: signed([{**item(HOST, FIRST, at), "domainName": None}]), "domainName is missing"),
    "no date": (lambda at: signed([{**item(HOST, FIRST, at), "date": None}]), "no RFC 3339 date"),
    "a date without an offset": (
        lambda at: signed([{**item(HOST, FIRST, at), "date": "2026-11-29T12:00:00"}]),
        "no RFC 3339 date",
    ),
    "no number": (lambda at: signed([item(HOST, FIRST, at, "30 days")]), "not a whole number of seconds"),
    "no whole number": (lambda at: signed([item(HOST, FIRST, at, True)]), "not a whole number of seconds"),
    "a number without end": (
        lambda at: signed([item(HOST, FIRST, at, 7)]).replace(b'"expire": 7', b'"expire": 1e999'),
        "not a signed list of ssl-pinning",
    ),
    "no host": (lambda at: signed([item("a b", FIRST, at)]), "contains an invalid host"),
    "an asterisk within": (lambda at: signed([item("a.*.test", FIRST, at)]), "cannot be pinned"),
    "an IP address": (lambda at: signed([item("127.0.0.1", FIRST, at)]), "cannot be pinned"),
    "too many pins": (
        lambda at: signed([item(HOST, Pin(bytes([n]) * 32), at) for n in range(65)]),
        f"{HOST} has more than 64 pins",
    ),
    "no JSON": (lambda _: b"<html>", "not a signed list of ssl-pinning"),
    "no object": (lambda _: b"[]", "the list is not a JSON object"),
    "no signature": (lambda _: b'{"payload": {"keys": []}}', "signature is missing"),
    "no base64": (lambda _: b'{"payload": {"keys": []}, "signature": "!"}', "not a signed list of ssl-pinning"),
    "no UTF-8": (lambda _: b"\xff", "not a signed list of ssl-pinning"),
    "half a character": (lambda _: b'{"payload": {"\\ud800": 1}, "signature": ""}', "not a signed list of ssl-pinning"),
    "nested without end": (lambda _: b'{"payload": ' + b'{"a":' * 60_000, "not a signed list of ssl-pinning"),
    "a number beyond 2**53": (lambda _: b'{"payload": {"n": 9007199254740993}, "signature": ""}', "not a signed list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_list_changes_nothing(name: str, bank: Bank, listed: List) -> None:
    made, said = REFUSED[name]
    before = bank.store.hosts()
    listed.publish(data=made(bank.clock()))
    outcome = listed.follow()
    assert said in outcome
    assert bank.store.hosts() == before
    # The next good one is taken.
    listed.publish(item(HOST, SECOND, bank.clock()))
    listed.follow()
    assert pinned(bank.store) == {SECOND}


def endless(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 65_536)
    except OSError:
        return True


def moved(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(302)
    handler.send_header("Location", "/other.json")
    handler.end_headers()
    return True


@pytest.mark.parametrize(
    ("misbehave", "said"),
    [(endless, "bytes exceeding the maximum"), (moved, "no redirect is followed"), (None, "answered 404")],
    ids=["endless data", "a redirect", "no file"],
)
def test_the_fetch_is_bounded(
    bank: Bank, listed: List, misbehave: Callable[[BaseHTTPRequestHandler], bool] | None, said: str
) -> None:
    bank.publisher.misbehave = misbehave
    listed.file.unlink()
    assert said in listed.follow().lower()
    assert pinned(bank.store) == set(bank.pins)
    assert bank.publisher.paths() == ["/pins.json"] * 2


def test_without_rfc8785_the_outcome_says_what_to_install(
    bank: Bank, listed: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rfc8785", None)
    assert listed.follow() == (
        "rfc8785 is not installed, which verifies signed lists: install dynpin again with its extra, recovery"
    )
    assert pinned(bank.store) == set(bank.pins)
