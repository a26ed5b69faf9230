"""The threats of the issue, each on real sockets: a lock-out ends, and whoever would use that for himself gets nothing.

The rows of docs/how-to/recovery.md name these tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from dynpin import Pin, PinValidationError
from dynpin.clientstore import PinStore, enforce
from dynpin.clientstore.recovery import HTTPFetcher, verify
from dynpin.clientstore.store.lists import ask, looks, record, trusted_files
from dynpin.deploy.recovery import read_signers
from dynpin.pin_list import PIN_LIST, ListedHost, PinList
from dynpin.recovery import ADOPTION
from tests.clientstore.world import leaf_pin
from tests.recovery.conftest import HOST, MAX_AGE, Bank
from tests.recovery.operator import PASSPHRASE, Operator

THIEF = b"t" * 32
PINS = tuple(Pin(bytes([number]) * 32) for number in (7, 8))


def lock_out(bank: Bank) -> None:
    """The client notes the bank, whose keys are lost then."""
    bank.operator.sign({HOST: bank.pins})
    bank.visit(bank.header())
    bank.lose_keys()


def stays_refused(bank: Bank, why: str) -> None:
    """The client refuses, its look comes to nothing, and the pins are what they were."""
    before = bank.store.entry(HOST)
    assert bank.refused()
    bank.settle()
    assert why in bank.outcome()
    assert bank.store.entry(HOST) == before
    assert bank.refused()


# -- what it is for ----------------------------------------------------------------------------------------------------


def test_a_lock_out_ends_with_the_next_attempt(bank: Bank) -> None:
    lock_out(bank)
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.settle()
    assert not bank.refused()
    entry = bank.store.entry(HOST)
    assert entry is not None
    assert entry.pins == bank.new_pins
    assert entry.recovery is not None
    assert entry.recovery.list_version == 2


def test_who_was_refused_before_the_list_was_signed_is_healed_after_it(bank: Bank) -> None:
    lock_out(bank)
    assert bank.refused()
    bank.settle()
    assert "no news" in bank.outcome()
    bank.operator.sign({HOST: bank.new_pins})
    bank.later()
    assert bank.refused()
    bank.settle()
    assert not bank.refused()


def test_nothing_is_fetched_while_nothing_is_wrong(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.pins})
    for _ in range(3):
        bank.visit(bank.header())
    bank.settle()
    assert bank.publisher.requests == []
    assert bank.store.looks() == []


def test_a_request_for_the_list_says_nothing_of_the_program(bank: Bank) -> None:
    lock_out(bank)
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.settle()
    for path, headers in bank.publisher.requests:
        assert HOST not in path
        assert {name.lower() for name in headers} <= {"host", "user-agent", "accept-encoding", "connection"}
        assert HOST not in "".join(headers.values())


def test_recovery_off_looks_at_nothing(bank: Bank) -> None:
    lock_out(bank)
    plain_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bank.authority.configure_trust(plain_context)
    off = enforce(plain_context, bank.store, recovery="off")
    with (
        socket.create_connection(("127.0.0.1", bank.site.port), timeout=60) as plain,
        pytest.raises(PinValidationError),
    ):
        off.wrap_socket(plain, server_hostname=HOST)
    assert bank.store.looks() == []


def test_the_list_releases_a_host(bank: Bank) -> None:
    lock_out(bank)
    bank.operator.sign({HOST: ()})
    assert bank.refused()
    bank.settle()
    assert not bank.refused()
    assert bank.store.known_host(HOST) is None


# -- the way is the attacker's -----------------------------------------------------------------------------------------


def test_rollback_to_an_older_list_is_refused(bank: Bank) -> None:
    lock_out(bank)
    old = bank.folder / "old"
    shutil.copytree(bank.operator.www, old)
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.settle()
    assert not bank.refused()
    # Another key again, and the attacker shows the first list.
    bank.site.show(bank.authority.issue_cert(HOST))
    bank.publisher.folder = old
    bank.later()
    stays_refused(bank, "must be >=")


def test_freeze_ends_when_the_timestamp_expires(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.pins})
    bank.visit(bank.header())
    bank.lose_keys()
    bank.later(8 * 86_400)
    stays_refused(bank, "has expired")


def test_mix_and_match_is_refused(bank: Bank) -> None:
    lock_out(bank)
    old = {file.name: file.read_bytes() for file in bank.operator.www.glob("*.json")}
    bank.operator.sign({HOST: bank.new_pins})
    # The new timestamp and snapshot with the old list under the name of the new one.
    (bank.operator.www / "2.targets.json").write_bytes(old["1.targets.json"])
    stays_refused(bank, "Expected targets v2, got v1")


def test_a_list_that_is_not_the_signed_one_is_refused(bank: Bank) -> None:
    lock_out(bank)
    bank.operator.sign({HOST: bank.new_pins})
    for file in (bank.operator.www / "targets").iterdir():
        file.write_bytes(file.read_bytes().replace(b'"include_subdomains": false', b'"include_subdomains": true '))
    stays_refused(bank, "not match")


def test_replay_of_another_owners_list_is_refused(bank: Bank, tmp_path: Path) -> None:
    lock_out(bank)
    other = Operator(tmp_path / "other")
    other.sign({HOST: bank.new_pins})
    bank.publisher.folder = other.www
    stays_refused(bank, "not the root that was noted")


def test_a_list_changes_no_host_that_has_not_noted_its_root(bank: Bank) -> None:
    bank.visit(f'pin-sha256="{bank.pins[0]}"; pin-sha256="{bank.pins[1]}"; max-age=9999', host="shop.test")
    bank.store.pin("other.test", bank.pins)
    lock_out(bank)
    bank.operator.sign({HOST: bank.new_pins, "shop.test": bank.new_pins, "other.test": bank.new_pins})
    assert bank.refused()
    bank.settle()
    assert not bank.refused()
    for name in ("shop.test", "other.test"):
        known = bank.store.known_host(name)
        assert known is not None
        assert known.pins == bank.pins
        assert bank.refused(name)


def test_endless_data_is_cut_off(bank: Bank) -> None:
    lock_out(bank)

    def endless(handler: BaseHTTPRequestHandler) -> bool:
        if not handler.path.endswith("timestamp.json"):
            return False
        handler.send_response(200)
        handler.end_headers()
        try:
            while not bank.publisher.stop.is_set():
                handler.wfile.write(b" " * 65_536)
        except OSError:
            pass
        return True

    bank.publisher.misbehave = endless
    stays_refused(bank, "exceeding the maximum allowed length")


def test_a_slow_server_is_given_up(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynpin.clientstore.store.lists._FIRST_LOOK", 1.0)
    lock_out(bank)

    def slow(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not bank.publisher.stop.wait(0.05):
                handler.wfile.write(b" ")
        except OSError:
            pass
        return True

    bank.publisher.misbehave = slow
    stays_refused(bank, "took longer than 1 seconds")


@pytest.mark.parametrize("location", ["http://127.0.0.2:1/", "file:///etc/passwd", "https://thief.test/"])
def test_no_redirect_is_followed(bank: Bank, location: str) -> None:
    lock_out(bank)

    def redirect(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.end_headers()
        return True

    bank.publisher.misbehave = redirect
    stays_refused(bank, "no redirect is followed")


def test_a_server_that_is_away_changes_nothing_and_is_asked_again(bank: Bank) -> None:
    lock_out(bank)
    bank.operator.sign({HOST: bank.new_pins})

    def away(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_error(503)
        return True

    bank.publisher.misbehave = away
    stays_refused(bank, "503")
    bank.publisher.misbehave = None
    bank.later()
    assert bank.refused()
    bank.settle()
    assert not bank.refused()


# -- keys are the attacker's -------------------------------------------------------------------------------------------


def test_one_of_three_stolen_keys_signs_nothing(bank: Bank, tmp_path: Path) -> None:
    bank.operator = operator = Operator(tmp_path / "three", threshold=2, of=3)
    bank.publisher.folder = operator.www
    operator.sign({HOST: bank.pins})
    bank.visit(bank.header())
    # The thief has one key of the list, those of snapshot and timestamp, the web server and a certificate.
    bank.site.show(bank.new)
    data = PinList({HOST: ListedHost(bank.new_pins)}).to_bytes()
    target = TargetFile.from_data(PIN_LIST, data, ["sha256"])
    targets = Metadata(Targets(2, targets={PIN_LIST: target}))
    targets.signed.expires = operator.repository.signed()["targets"].expires
    targets.sign(read_signers(operator.keys("targets")[:1], lambda: PASSPHRASE)[0])
    (operator.www / "2.targets.json").write_bytes(targets.to_bytes())
    (operator.www / "targets" / f"{target.hashes['sha256']}.{PIN_LIST}").write_bytes(data)
    snapshot = Metadata(Snapshot(2, expires=targets.signed.expires, meta={"targets.json": MetaFile(2)}))
    snapshot.sign(read_signers(operator.keys("snapshot"), lambda: b"")[0])
    (operator.www / "2.snapshot.json").write_bytes(snapshot.to_bytes())
    timestamp = Metadata(Timestamp(2, expires=targets.signed.expires, snapshot_meta=MetaFile(2)))
    timestamp.sign(read_signers(operator.keys("timestamp"), lambda: b"")[0])
    (operator.www / "timestamp.json").write_bytes(timestamp.to_bytes())
    stays_refused(bank, "signed by 1/2")


def test_after_the_root_has_changed_a_stolen_timestamp_key_signs_nothing(bank: Bank) -> None:
    lock_out(bank)
    stolen = bank.operator.keys("timestamp")
    bank.operator.rotate("timestamp")
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.settle()
    assert not bank.refused()
    old = bank.operator.repository.signed()["timestamp"]
    assert isinstance(old, Timestamp)
    old.version += 1
    forged = Metadata(old)
    forged.sign(read_signers(stolen, lambda: b"")[0])
    (bank.operator.www / "timestamp.json").write_bytes(forged.to_bytes())
    bank.site.show(bank.authority.issue_cert(HOST))
    bank.later()
    stays_refused(bank, "signed by 0/1")


def test_a_client_that_was_away_walks_through_every_root(bank: Bank) -> None:
    lock_out(bank)
    for _ in range(3):
        bank.operator.rotate("root", "targets", "snapshot", "timestamp")
    bank.operator.sign({HOST: bank.new_pins}, keys=[*bank.operator.keys("root"), *bank.operator.keys("targets")])
    assert bank.refused()
    bank.settle()
    assert not bank.refused()


# -- the web server is the attacker's ----------------------------------------------------------------------------------


def thiefs_hour(bank: Bank, *headers: str) -> None:
    for header in headers:
        bank.visit(header)


@pytest.mark.parametrize("forgets_first", [False, True], ids=["pins at once", "max-age=0 before"])
def test_ransom_pins_are_undone_by_the_owners_list(bank: Bank, forgets_first: bool) -> None:
    bank.operator.sign({HOST: bank.pins})
    bank.visit(bank.header())
    # For an hour the thief has the server and its key: he pins that and his own, and names a root of his.
    ransom = (leaf_pin(bank.lost), PINS[0])
    forget = [bank.header(max_age=0, root=THIEF)] if forgets_first else []
    thiefs_hour(bank, *forget, bank.header(*ransom, max_age=60 * 86_400, root=THIEF, uri="http://127.0.0.1:9"))
    entry = bank.store.entry(HOST)
    assert entry is not None
    assert entry.pins == ransom
    bank.lose_keys()  # the owner is back, with a key that the thief does not have
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.settle()
    assert not bank.refused()
    assert (healed := bank.store.entry(HOST)) is not None
    assert healed.expires_at == entry.expires_at, "no list gives more time than the last header"


def test_a_thief_plants_no_root_on_a_host_that_was_known_without(bank: Bank) -> None:
    bank.operator.sign({HOST: PINS})
    plain = f'pin-sha256="{bank.pins[0]}"; pin-sha256="{bank.pins[1]}"; max-age={MAX_AGE}'
    bank.visit(plain)
    for header in (bank.header(), bank.header(max_age=0), bank.header(), bank.header()):
        bank.visit(header)
        bank.later(3_600)
    bank.lose_keys()
    assert bank.refused()
    bank.settle()
    assert bank.store.looks() == []
    # The owner's own root is taken, once every visit of seven days has named it.
    bank.site.show(bank.lost)
    bank.offset[0] += ADOPTION
    bank.visit(bank.header())
    bank.lose_keys()
    assert bank.refused()
    bank.settle()
    assert len(bank.store.looks()) == 1


def test_no_list_outlives_the_last_header(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.pins})
    bank.visit(bank.header(max_age=3_600))
    bank.lose_keys()
    bank.operator.sign({HOST: PINS})
    assert bank.refused()
    bank.settle()
    bank.later(3_700)
    assert bank.store.known_host(HOST) is None
    assert not bank.refused()


# -- the client's own troubles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("years", [1, -1])
def test_a_clock_that_is_wrong_by_a_year(bank: Bank, years: int) -> None:
    bank.operator.sign({HOST: bank.pins})
    bank.offset[0] = years * 365 * 86_400
    bank.visit(bank.header())
    bank.lose_keys()
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.settle()
    if years > 0:
        assert "or your clock is wrong" in bank.outcome()
        assert bank.refused()
    else:  # a clock that is behind cannot see that something has expired, and what is signed counts
        assert not bank.refused()


def test_a_store_from_a_backup_takes_the_present_list_and_no_expired_one(bank: Bank) -> None:
    lock_out(bank)
    bank.store.rest()
    shutil.copy(bank.folder / "pins", bank.folder / "copy")
    bank.operator.sign({HOST: bank.new_pins})
    with PinStore(bank.folder / "copy", clock=bank.clock) as copy:
        assert bank.refused(store=copy)
        bank.settle()
        assert not bank.refused(store=copy)
    shutil.copy(bank.folder / "pins", bank.folder / "late")
    bank.later(8 * 86_400)
    with PinStore(bank.folder / "late", clock=bank.clock) as late:
        assert bank.refused(store=late)
        bank.settle()
        assert "has expired" in str(late.looks()[0].outcome)
        assert bank.refused(store=late)


def test_what_a_killed_process_has_asked_for_is_done_by_the_next(bank: Bank) -> None:
    lock_out(bank)
    held = bank.publisher.stop

    def hang(handler: BaseHTTPRequestHandler) -> bool:
        return held.wait(600)

    bank.publisher.misbehave = hang
    program = f"""
import socket, ssl, sys
from dynpin.clientstore import PinStore, enforce
store = PinStore({str(bank.folder / "pins")!r})
context = enforce(ssl.create_default_context(cafile={str(bank.folder / "ca.pem")!r}), store)
try:
    context.wrap_socket(socket.create_connection(("127.0.0.1", {bank.site.port})), server_hostname={HOST!r})
except ssl.SSLCertVerificationError:
    print("refused", flush=True)
sys.stdin.read()
"""
    (bank.folder / "ca.pem").write_bytes(bank.authority.cert_pem.bytes())
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"refused\n"
        while not bank.publisher.requests:  # it is in the middle of it
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    bank.publisher.misbehave = None
    bank.operator.sign({HOST: bank.new_pins})
    bank.later(61)  # the lease of the killed one is over
    with bank.context().wrap_socket(_connected(bank), server_hostname="shop.test"):
        pass  # any handshake of the next process goes on with it
    bank.settle()
    assert not bank.refused()


def _connected(bank: Bank) -> socket.socket:
    return socket.create_connection(("127.0.0.1", bank.site.port), timeout=60)


def test_two_who_apply_at_once_leave_the_newer_list(bank: Bank) -> None:
    lock_out(bank)
    recovery = bank.operator.repository.recovery(bank.publisher.uri)
    bank.store.database.write(lambda connection: ask(connection, recovery, bank.clock()))
    (look,) = looks(bank.store.database.select)
    files = trusted_files(bank.store.database.select, recovery.root)
    first = verify(recovery, files, HTTPFetcher(5.0), bank.clock())
    bank.operator.sign({HOST: bank.new_pins})
    second = verify(recovery, files, HTTPFetcher(5.0), bank.clock())
    now = bank.clock()
    for seen, changed in ((second, (HOST,)), (first, ())):
        applied = bank.store.database.write(
            partial(record, look=look, seen=seen, problem=seen.problem, before=files, now=now)
        )
        assert applied == changed
    assert not bank.refused()
    assert f"version 2 of the list gave {HOST} other pins" in bank.outcome()


# -- following ---------------------------------------------------------------------------------------------------------


def test_a_followed_list_pins_before_the_first_visit(bank: Bank) -> None:
    bank.operator.sign({HOST: PINS})
    look = bank.store.follow(bank.publisher.uri, bank.operator.root)
    assert look.outcome is not None
    assert look.next_look_at is not None
    assert 0.8 * 86_400 < look.next_look_at - bank.clock() < 1.2 * 86_400
    assert bank.refused(), "the first visit is at the attacker"
    known = bank.store.known_host(HOST)
    assert known is not None
    assert (known.source, known.origin) == ("static", bank.publisher.uri)


def test_a_first_visit_at_the_attacker_is_what_recovery_cannot_undo(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.new_pins})
    bank.visit(bank.header(root=THIEF, uri="http://127.0.0.1:9"))
    bank.lose_keys()
    stays_refused(bank, "")


def test_followed_pins_give_way_to_those_of_the_user(bank: Bank) -> None:
    bank.store.pin(HOST, bank.pins)
    bank.operator.sign({HOST: PINS, "shop.test": PINS, "other.test": PINS})
    bank.store.follow(bank.publisher.uri, bank.operator.root)
    bank.store.forget("shop.test")
    bank.operator.sign({HOST: PINS[:1], "shop.test": PINS[:1], "other.test": PINS[:1]})
    bank.offset[0] += 2 * 86_400
    bank.store.follow(bank.publisher.uri, bank.operator.root)
    known = {entry.host: entry.pins for entry in bank.store.hosts()}
    assert known == {HOST: bank.pins, "other.test": PINS[:1]}


def test_a_followed_list_that_is_refused_is_looked_at_at_once(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.pins})
    bank.store.follow(bank.publisher.uri, bank.operator.root)
    bank.lose_keys()
    bank.operator.sign({HOST: bank.new_pins})
    bank.later()
    assert bank.refused()
    bank.settle()
    assert not bank.refused()
