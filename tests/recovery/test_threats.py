"""What an attacker may try, each on real sockets: the way, the keys or the web server are his.

The rows of docs/how-to/recovery.md name these tests.
"""

from __future__ import annotations

import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from dynpin.deploy.recovery import read_signers
from dynpin.pin_list import PIN_LIST, ListedHost, PinList
from dynpin.recovery import ADOPTION
from tests.clientstore.world import leaf_pin
from tests.recovery.conftest import HOST, MAX_AGE, PINS, THIEF, Bank
from tests.recovery.operator import PASSPHRASE, Operator

# -- the way is the attacker's -----------------------------------------------------------------------------------------


def test_rollback_to_an_older_list_is_refused(bank: Bank) -> None:
    bank.lock_out()
    old = bank.folder / "old"
    shutil.copytree(bank.operator.www, old)
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.heals()
    # Another key again, and the attacker shows the first list.
    bank.site.show(bank.authority.issue_cert(HOST))
    bank.publisher.folder = old
    bank.later()
    bank.stays_refused("must be >=")


def test_freeze_ends_when_the_timestamp_expires(bank: Bank) -> None:
    bank.lock_out()
    bank.later(8 * 86_400)
    bank.stays_refused("has expired")


def test_mix_and_match_is_refused(bank: Bank) -> None:
    bank.lock_out()
    old = {file.name: file.read_bytes() for file in bank.operator.www.glob("*.json")}
    bank.operator.sign({HOST: bank.new_pins})
    # The new timestamp and snapshot with the old list under the name of the new one.
    (bank.operator.www / "2.targets.json").write_bytes(old["1.targets.json"])
    bank.stays_refused("Expected targets v2, got v1")


def test_a_list_that_is_not_the_signed_one_is_refused(bank: Bank) -> None:
    bank.lock_out()
    bank.operator.sign({HOST: bank.new_pins})
    for file in (bank.operator.www / "targets").iterdir():
        file.write_bytes(file.read_bytes().replace(b'"include_subdomains": false', b'"include_subdomains": true '))
    bank.stays_refused("not match")


def test_replay_of_another_owners_list_is_refused(bank: Bank, tmp_path: Path) -> None:
    bank.lock_out()
    other = Operator(tmp_path / "other")
    other.sign({HOST: bank.new_pins})
    bank.publisher.folder = other.www
    bank.stays_refused("not the root that was noted")


def test_a_list_changes_no_host_that_has_not_noted_its_root(bank: Bank) -> None:
    bank.visit(f'pin-sha256="{bank.pins[0]}"; pin-sha256="{bank.pins[1]}"; max-age=9999', host="shop.test")
    bank.store.pin("other.test", bank.pins)
    bank.lock_out()
    bank.operator.sign({HOST: bank.new_pins, "shop.test": bank.new_pins, "other.test": bank.new_pins})
    assert bank.heals()
    for name in ("shop.test", "other.test"):
        known = bank.store.known_host(name)
        assert known is not None
        assert known.pins == bank.pins
        assert bank.refused(name)


def test_endless_data_is_cut_off(bank: Bank) -> None:
    bank.lock_out()

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
    bank.stays_refused("exceeding the maximum allowed length")


def test_a_slow_server_is_given_up(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynpin.clientstore.store.lists._FIRST_LOOK", 1.0)
    bank.lock_out()

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
    bank.stays_refused("took longer than 1 second")


@pytest.mark.parametrize("location", ["http://127.0.0.2:1/", "file:///etc/passwd", "https://thief.test/"])
def test_no_redirect_is_followed(bank: Bank, location: str) -> None:
    bank.lock_out()

    def redirect(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.end_headers()
        return True

    bank.publisher.misbehave = redirect
    bank.stays_refused("no redirect is followed")


def test_a_server_that_is_away_changes_nothing_and_is_asked_again(bank: Bank) -> None:
    bank.lock_out()
    bank.operator.sign({HOST: bank.new_pins})

    def away(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_error(503)
        return True

    bank.publisher.misbehave = away
    bank.stays_refused("503")
    bank.publisher.misbehave = None
    bank.later()
    assert bank.heals()


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
    bank.stays_refused("signed by 1/2")


def test_after_the_root_has_changed_a_stolen_timestamp_key_signs_nothing(bank: Bank) -> None:
    bank.lock_out()
    stolen = bank.operator.keys("timestamp")
    bank.operator.rotate("timestamp")
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.heals()
    old = bank.operator.repository.signed()["timestamp"]
    assert isinstance(old, Timestamp)
    old.version += 1
    forged = Metadata(old)
    forged.sign(read_signers(stolen, lambda: b"")[0])
    (bank.operator.www / "timestamp.json").write_bytes(forged.to_bytes())
    bank.site.show(bank.authority.issue_cert(HOST))
    bank.later()
    bank.stays_refused("signed by 0/1")


def test_a_client_that_was_away_walks_through_every_root(bank: Bank) -> None:
    bank.lock_out()
    for _ in range(3):
        bank.operator.rotate("root", "targets", "snapshot", "timestamp")
    bank.operator.sign({HOST: bank.new_pins}, keys=[*bank.operator.keys("root"), *bank.operator.keys("targets")])
    assert bank.heals()


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
    assert bank.heals()
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
    bank.finish_looks()
    assert bank.store.looks() == []
    # The owner's own root is taken, once every visit of seven days has named it.
    bank.site.show(bank.lost)
    bank.offset[0] += ADOPTION
    bank.visit(bank.header())
    bank.lose_keys()
    assert bank.refused()
    bank.finish_looks()
    assert len(bank.store.looks()) == 1


def test_no_list_outlives_the_last_header(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.pins})
    bank.visit(bank.header(max_age=3_600))
    bank.lose_keys()
    bank.operator.sign({HOST: PINS})
    assert bank.refused()
    bank.finish_looks()
    bank.later(3_700)
    assert bank.store.known_host(HOST) is None
    assert not bank.refused()
