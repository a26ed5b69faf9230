"""What a host, a list server or the client's own machine may do to a look, besides the threats in the docs' table."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from typing import Literal
from unittest.mock import ANY

import pytest
import trustme
from tuf.api.metadata import Metadata, Targets, Timestamp

from dynpin import PinValidationError
from dynpin.clientstore import enforce
from dynpin.clientstore.store.lists import ask, claim, record, trusted_files
from dynpin.deploy.recovery import read_signers
from dynpin.errors import StoreError
from dynpin.middleware.collector.triage import Case, Roots, diagnose
from dynpin.pin_list import PIN_LIST
from dynpin.report import parse_report
from tests.recovery.conftest import HOST, Bank
from tests.recovery.operator import PASSPHRASE
from tests.recovery.publisher import Publisher


def heals(bank: Bank) -> None:
    """The owner signs the new key, and the next look applies the list."""
    bank.operator.sign({HOST: bank.new_pins})
    bank.later()
    assert bank.heals(), bank.outcome()


def names_kept(bank: Bank) -> set[str]:
    return set(trusted_files(bank.store.database.select, bank.operator.repository.recovery("http://a.test").root))


def _without_timestamp(handler: BaseHTTPRequestHandler) -> bool:
    if not handler.path.endswith("timestamp.json"):
        return False
    handler.send_error(503)
    return True


# -- a list server that sends slowly -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "again"),
    [(b"", b"0"), (b"0\r\n", b"a: b\r\n"), (b"1;", b"x"), (b"2\r\n ", b"")],
    ids=["the size of a chunk", "lines after the last chunk", "what a chunk is called", "a chunk that never ends"],
)
def test_a_body_that_drips_inside_of_one_read_is_given_up(
    bank: Bank, monkeypatch: pytest.MonkeyPatch, begin: bytes, again: bytes
) -> None:
    monkeypatch.setattr("dynpin.clientstore.store.lists._FIRST_LOOK", 1.0)
    bank.lock_out()

    def drip(handler: BaseHTTPRequestHandler) -> bool:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            handler.wfile.write(begin)
            while not bank.publisher.stop.wait(0.05):
                handler.wfile.write(again)
        except OSError:
            pass
        return True

    bank.publisher.misbehave = drip
    bank.stays_refused("took longer than 1 second")


# -- the attacker has keys ---------------------------------------------------------------------------------------------


def _forge_timestamp(bank: Bank, version: int) -> None:
    stolen = read_signers(bank.operator.keys("timestamp"), lambda: b"")[0]
    old = bank.operator.repository.signed()["timestamp"]
    assert isinstance(old, Timestamp)
    old.version = version
    forged = Metadata(old)
    forged.sign(stolen)
    (bank.operator.www / "timestamp.json").write_bytes(forged.to_bytes())


@pytest.mark.parametrize("version", [2**62, 2**64], ids=["the highest", "more than SQLite counts"])
def test_a_thief_who_signs_the_last_timestamp_of_all_is_undone_by_a_new_root(bank: Bank, version: int) -> None:
    bank.lock_out()
    _forge_timestamp(bank, version)
    assert bank.refused()
    bank.finish_looks()
    assert "no news" in bank.outcome()
    bank.operator.rotate("timestamp")
    bank.publisher.misbehave = _without_timestamp  # the client gets the new root, and nothing else
    bank.later()
    assert bank.refused()
    bank.finish_looks()
    bank.publisher.misbehave = None
    heals(bank)


def test_a_list_with_a_version_beyond_all_counting_is_refused_and_the_next_look_comes(bank: Bank) -> None:
    bank.lock_out()
    repository = bank.operator.repository
    real = repository.public / "1.targets.json"
    kept = real.read_bytes()
    targets = Metadata[Targets].from_bytes(kept)
    targets.signed.version = 2**64
    targets.sign(read_signers(bank.operator.keys("targets"), lambda: PASSPHRASE)[0])
    name = f"{2**64}.targets.json"
    (repository.public / name).write_bytes(targets.to_bytes())
    bank.operator.publish()
    bank.stays_refused("the largest allowed is")


def test_a_chain_of_roots_without_an_end_fills_no_disk(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynpin.clientstore.recovery.verifying._MOST_KEPT", 10_000)
    bank.lock_out()
    assert bank.refused()
    bank.finish_looks()
    before = names_kept(bank)
    for _ in range(5):
        bank.operator.rotate("timestamp")
    bank.later()
    bank.stays_refused("its roots have more than")
    assert names_kept(bank) == before


def test_the_list_of_a_host_that_was_refused_is_not_kept(bank: Bank) -> None:
    bank.lock_out()
    heals(bank)
    assert "targets.json" in names_kept(bank)
    assert PIN_LIST not in names_kept(bank)
    bank.store.follow(bank.publisher.uri, bank.operator.root)
    assert PIN_LIST in names_kept(bank)


# -- the client's own troubles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoilt", ["1.root.json", "timestamp.json", "snapshot.json", "targets.json"])
def test_damage_to_the_trusted_files_does_not_block_the_list(bank: Bank, spoilt: str) -> None:
    bank.lock_out()
    assert bank.refused()
    bank.finish_looks()
    bank.store.database.write(
        lambda connection: connection.execute("UPDATE trusted SET data = x'00' WHERE name LIKE ?", (f"%{spoilt}",))
    )
    bank.publisher.misbehave = _without_timestamp
    bank.later()
    if spoilt != "1.root.json":
        bank.stays_refused("503")
    bank.publisher.misbehave = None
    heals(bank)


def test_any_error_becomes_the_outcome_and_the_next_look_comes(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.lock_out()
    with monkeypatch.context() as patch:

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a fault of a library")

        patch.setattr("dynpin.clientstore.recovery.verify", broken)
        bank.stays_refused("ZeroDivisionError: a fault of a library")
    heals(bank)


def test_a_look_is_forgotten_with_its_host(bank: Bank) -> None:
    bank.lock_out()
    assert bank.refused()
    bank.finish_looks()
    assert names_kept(bank)
    bank.store.forget(HOST)
    assert bank.store.looks() == []
    assert names_kept(bank) == set()


def test_a_look_of_a_host_that_has_expired_is_forgotten_with_the_next_one(bank: Bank) -> None:
    bank.visit(bank.header(max_age=3_600))
    bank.visit(bank.header(root=b"r" * 32, uri="http://127.0.0.1:9"), host="shop.test")
    bank.lose_keys()
    assert bank.refused()
    bank.finish_looks()
    bank.later(3_700)
    assert bank.refused("shop.test")
    bank.finish_looks()
    assert [look.recovery.uri for look in bank.store.looks()] == ["http://127.0.0.1:9"]
    assert names_kept(bank) == set()


# -- https -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [True, False])
def test_a_list_at_https_is_verified_with_the_programs_roots_and_without_pins(bank: Bank, is_known: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (bank.authority if is_known else trustme.CA()).issue_cert("localhost").configure_cert(context)
    bank.operator.sign({HOST: bank.new_pins})
    with Publisher(bank.operator.www, context) as publisher:
        bank.visit(bank.header(uri=publisher.uri))
        bank.store.pin("localhost", bank.pins)  # other keys than those of the list's server
        bank.lose_keys()
        if is_known:
            assert bank.heals()
        else:
            bank.stays_refused("unable to get local issuer certificate. If your own CA signed it, name")
        assert len(bank.store.looks()) == 1


# -- messages ----------------------------------------------------------------------------------------------------------


def test_a_report_says_what_was_done_about_recovery(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the collector, in the client's words: what it does now, and the version of the list that it took last."""

    def said(recovery: Literal["on", "off"]) -> tuple[object, str]:
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        plain.load_verify_locations(cadata=bank.authority.cert_pem.bytes().decode("ascii"))
        context = enforce(plain, bank.store, reporter="off", recovery=recovery)
        with (
            socket.create_connection(("127.0.0.1", bank.site.port), timeout=60) as sock,
            pytest.raises(PinValidationError) as caught,
        ):
            context.wrap_socket(sock, server_hostname=HOST)
        assert caught.value.report is not None
        body = caught.value.report.to_json()
        read = parse_report(body)
        assert "unknown-members" not in read.flags
        assert read.recovery == caught.value.report.recovery
        (note,) = [
            each
            for each in diagnose(Case(read, bank.clock(), "enforce", Roots(b"", public=b""))).notes
            if "recovery" in each
        ]
        return json.loads(body)["recovery"], note

    bank.lock_out()
    assert said("off") == ({"state": "off", "list-version": 0}, ANY)
    state, note = said("on")
    assert state == {"state": "asked", "list-version": 0}
    assert note.endswith("is fetching the signed list now. It has accepted no list so far.")
    bank.finish_looks()
    heals(bank)
    bank.site.show(bank.lost)
    state, note = said("on")
    assert state == {"state": "asked", "list-version": 2}
    assert "The last list that it accepted was version 2" in note
    monkeypatch.setattr("dynpin.clientstore.enforcement.decision.find_spec", lambda name: None)
    assert said("on")[0] == {"state": "not-installed", "list-version": 2}


def _told(bank: Bank, context: ssl.SSLContext) -> str:
    with (
        socket.create_connection(("127.0.0.1", bank.site.port), timeout=60) as plain,
        pytest.raises(PinValidationError) as caught,
    ):
        context.wrap_socket(plain, server_hostname=HOST)
    return str(caught.value)


def test_the_message_does_not_mention_a_list_that_is_not_looked_at(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.lock_out()
    on, plain = bank.context(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.load_verify_locations(cadata=bank.authority.cert_pem.bytes().decode("ascii"))
    off = enforce(plain, bank.store, reporter="off", recovery="off")
    assert "this program does not look there" in _told(bank, off)
    assert "taken within a minute" in _told(bank, on)

    def full(_: object) -> None:
        raise StoreError("No space left on device")

    monkeypatch.setattr(bank.store.database, "write", full)
    assert "the pin store could not keep the request" in _told(bank, on)


def test_a_kill_inside_of_the_transaction_changes_nothing(bank: Bank) -> None:
    bank.lock_out()
    bank.operator.sign({HOST: bank.new_pins})
    before = bank.store.entry(HOST)
    program = f"""
import os, signal
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import ask, lists, look_at
store = PinStore({str(bank.folder / "pins")!r})
entries = store.hosts()
store.database.write(lambda connection: ask(connection, entries, store.clock()))
put = lists.put
def put_and_die(*given):
    put(*given)
    os.kill(os.getpid(), signal.SIGKILL)
lists.put = put_and_die
look_at(store.database, store.looks()[0], store.clock)
"""
    bank.store.rest()
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == -signal.SIGKILL
    assert bank.store.entry(HOST) == before
    assert names_kept(bank) == set(), "what TUF trusts is kept with the pins, or not at all"
    assert bank.heals()


def test_lists_that_have_come_to_nothing_wait_behind_one_that_may_heal(bank: Bank) -> None:
    uris = [f"http://127.0.0.1:9/{number}" for number in range(4)]
    for number, uri in enumerate(uris):
        name, root = f"host{number}.test", bytes([number]) * 32
        bank.store.note(name, bank.header(root=root, uri=uri), (bank.pins[0],))
    hosts = bank.store.hosts()

    def job(connection: sqlite3.Connection) -> str:
        ask(connection, hosts[:3], bank.clock())
        while (look := claim(connection, bank.clock())) is not None:
            record(connection, look, None, "it took longer than 30 seconds", before={}, now=bank.clock())
        bank.later()
        ask(connection, hosts, bank.clock())
        first = claim(connection, bank.clock())
        assert first is not None
        return first.recovery.uri

    assert bank.store.database.write(job) == uris[3]
