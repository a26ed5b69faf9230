"""`--json` of the verbs that change something: what they did, for a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trustme

from dynpin import Pin
from dynpin.clientstore import PinStore
from dynpin.middleware.collector import Token, open_storage
from tests.deploy.commands import dynpin

PIN, BACKUP = (Pin(bytes([number]) * 32) for number in (1, 2))


def said(*arguments: object, code: int = 0) -> object:
    """What a program reads on stdout."""
    done = dynpin(*map(str, arguments), "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_hosts_are_pinned_imported_and_forgotten(tmp_path: Path) -> None:
    store, table = ("--store", tmp_path / "pins"), tmp_path / "pins.json"
    pinned = said("hosts", "pin", "bank.test", PIN, BACKUP, "--include-subdomains", *store)
    assert [pinned] == said("hosts", "list", *store)
    table.write_text(json.dumps([{"host": "shop.bank.test", "pins": [str(PIN)]}]))
    assert said("hosts", "import", table, *store) == {"imported": 1, "not_taken": 0}
    assert said("hosts", "forget", "shop.bank.test", "bank.test", *store) == [
        {"host": "shop.bank.test", "forgotten": True, "still_pinned_by": "bank.test"},
        {"host": "bank.test", "forgotten": True, "still_pinned_by": None},
    ]
    assert said("hosts", "forget", "bank.test", *store, code=1) == [
        {"host": "bank.test", "forgotten": False, "still_pinned_by": None}
    ]


def test_a_finding_without_a_document_of_its_own_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trustme.CA().cert_pem.write_to_path("root.pem")
    found = said("init", "root.pem", code=1)
    assert found == {
        "ok": False,
        "message": "the certificate of root.pem names no host: ask your CA for one with subjectAltName",
    }
    # Wrong usage has none.
    assert dynpin("rotate", "next", "--done", "--json").stdout == ""
    assert dynpin("guard", "--hook", "certbot", "--json").stdout == ""
    assert dynpin("init", "root.pem").stdout == ""
    assert dynpin("pin", "root.pem", "absent.pem", "--json").stdout == ""
    assert dynpin("simulate", "--example", "--json").stdout == ""


def test_no_list_can_recover_a_host_without_a_root(tmp_path: Path) -> None:
    with PinStore(tmp_path / "pins") as store:
        store.pin("bank.test", [PIN])
    assert said("hosts", "recover", "bank.test", "--store", tmp_path / "pins", code=1) == []


def test_reports_are_dropped(tmp_path: Path) -> None:
    PinStore(tmp_path / "pins").close()
    store = ("--store", tmp_path / "pins")
    assert said("reports", "drop", "--all", *store) == {"dropped": 0, "missing": []}
    assert said("reports", "drop", "7", *store, code=1) == {"dropped": 0, "missing": [7]}


def test_a_storage_is_upgraded_and_its_tokens_are_revoked(tmp_path: Path) -> None:
    file = tmp_path / "reports.sqlite"
    storage = ("--storage", file)
    kept = open_storage(file)
    kept.add_token(Token("shop", "", (), 0.0))
    kept.close()
    assert said("collect", "migrate", *storage) == {"storage": str(file), "ready": True}
    assert said("collect", "tokens", "revoke", "shop", *storage) == {"token": "shop", "revoked": True}
    dynpin("collect", "api-tokens", "add", "ci", "--scope", "read", "--storage", str(file))
    assert said("collect", "api-tokens", "revoke", "ci", *storage) == {"name": "ci", "revoked": True}


def test_the_files_of_a_practice_ca_are_named(tmp_path: Path) -> None:
    files = said("lab", "ca", tmp_path / "tls", "localhost")
    assert isinstance(files, dict)
    assert {name: Path(file).name for name, file in files.items()} == {
        "ca": "ca.pem",
        "ca_key": "ca.key.pem",
        "chain": "fullchain.pem",
        "key": "privkey.pem",
    }


def test_a_signed_list_on_its_way_from_the_keys_to_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "passphrase"
    secret.write_bytes(b"correct horse battery")
    secret.chmod(0o600)
    typed = ("--passphrase-file", secret)
    Path("pins.json").write_text(json.dumps([{"host": "bank.test", "pins": [str(PIN)]}]))
    said("recovery", "init", *typed)
    signed = said("recovery", "sign", "pins.json", "--yes", *typed)
    assert isinstance(signed, dict)
    assert [line for line in signed["changes"] if "bank.test" in line]
    assert signed["pending"] == [{"role": "targets", "version": 1, "missing": 0, "signed": 1}]
    published = said("recovery", "publish", "www")
    assert isinstance(published, dict)
    assert (published["folder"], "1.root.json" in published["written"], published["problems"]) == ("www", True, [])
    assert said("recovery", "catch-up", "www") == {"copied": [], "must_publish": False}
    refreshed = said("recovery", "refresh", "www")
    assert isinstance(refreshed, dict)
    assert (refreshed["timestamp_expires_at"][-1], refreshed["problems"]) == ("Z", [])
    rotated = said("recovery", "rotate-keys", "timestamp", *typed)
    assert isinstance(rotated, dict)
    assert [Path(file).name for file in rotated["keys"]] == ["timestamp-1.v2.key.pem"]
    assert rotated["pending"] == [{"role": "root", "version": 2, "missing": 0, "signed": 1}]
    # No server answers at the list's own address: the folder is read instead.
    uri = "http://127.0.0.1:9"
    followed = said("hosts", "follow", uri, "www/1.root.json", "--from", "www", "--store", "pins")
    assert isinstance(followed, dict)
    assert (followed["uri"], followed["hosts"]) == (uri, 1)
    assert "bank.test" in followed["outcome"]
