"""By hand and for a person: `dynpin hosts recover`, `follow`, `show`, the error's words, and the server's header."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from dynpin import PinValidationError, PolicyError
from dynpin.middleware import Policy
from dynpin.middleware.policy import read_inventory
from dynpin.recovery import Recovery
from tests.deploy.commands import dynpin
from tests.recovery.conftest import HOST, Bank

ROOT = Recovery(b"r" * 32, "https://recovery.example/bank")


def locked_out(bank: Bank) -> str:
    """A locked-out client without a network to its list; returns the option that names its store."""
    bank.visit(bank.header(uri="http://127.0.0.1:9"))
    bank.lose_keys()
    bank.operator.sign({HOST: bank.new_pins})
    bank.store.rest()
    return str(bank.folder / "pins")


def test_a_list_comes_from_a_stick(bank: Bank) -> None:
    store = locked_out(bank)
    done = dynpin("hosts", "recover", HOST, "--from", str(bank.operator.www), "--store", store)
    assert (done.exit_code, f"gave {HOST} other pins" in done.output) == (0, True), done.output
    assert not bank.refused()
    again = dynpin("hosts", "recover", "--from", str(bank.operator.www), "--store", store)
    assert (again.exit_code, "is no news" in again.output) == (0, True), again.output


def test_another_owners_stick_changes_nothing(bank: Bank, tmp_path: Path) -> None:
    store = locked_out(bank)
    (tmp_path / "empty").mkdir()
    done = dynpin("hosts", "recover", HOST, "--from", str(tmp_path / "empty"), "--store", store)
    assert (done.exit_code, "there is no" in done.output) == (1, True), done.output
    assert dynpin("hosts", "recover", "other.test", "--store", store).exit_code == 1
    assert bank.refused()


def test_show_tells_root_list_and_last_look(bank: Bank) -> None:
    store = locked_out(bank)
    dynpin("hosts", "recover", HOST, "--from", str(bank.operator.www), "--store", store)
    shown = dynpin("hosts", "show", HOST, "--store", store).output
    assert bank.operator.repository.recovery("http://127.0.0.1:9").root_text in shown
    assert "version 1" in shown
    assert "last look" in shown
    assert "list until" in shown
    told = json.loads(dynpin("hosts", "show", HOST, "--store", store, "--json").output)
    assert told["list_version"] == 1
    assert f"gave {HOST} other pins" in told["list_outcome"]
    assert told["list_looked_at"]
    timestamp = bank.operator.repository.signed()["timestamp"].expires
    assert told["list_expires_at"] == timestamp.isoformat().replace("+00:00", "Z")
    # A host without a noted root has no lines about a list.
    bank.store.pin("other.test", bank.pins)
    told = json.loads(dynpin("hosts", "show", "other.test", "--store", store, "--json").output)
    assert (told["list_outcome"], told["list_expires_at"]) == (None, None)


def test_a_list_is_followed_by_hand(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.pins})
    root = bank.operator.www / "1.root.json"
    follow = ("hosts", "follow", bank.publisher.uri, str(root), "--store", str(bank.folder / "other"))
    timestamp = bank.operator.www / "timestamp.json"
    away = timestamp.rename(bank.folder / "timestamp.json")
    failed = dynpin(*follow)
    assert (failed.exit_code, "timestamp.json answered 404" in failed.output) == (1, True), failed.output
    away.rename(timestamp)
    # A person who has removed the cause sees it at once, and not the outcome of the look before.
    done = dynpin(*follow)
    assert (done.exit_code, "1 host pinned by it" in done.output) == (0, True), done.output
    wrong = dynpin("hosts", "follow", "http://127.0.0.1:9", str(root), "--store", str(bank.folder / "third"))
    assert (wrong.exit_code, "cannot be read" in wrong.output) == (1, True), wrong.output


def test_the_error_says_that_a_list_may_heal_it(bank: Bank) -> None:
    locked_out(bank)
    with pytest.raises(PinValidationError, match="If its owner has signed new keys"):
        bank.visit(None)


def test_without_python_tuf_the_message_says_so(bank: Bank) -> None:
    locked_out(bank)
    (bank.folder / "ca.pem").write_bytes(bank.authority.cert_pem.bytes())
    program = f"""
import socket, ssl, sys
sys.modules["tuf"] = None
sys.meta_path.insert(0, type("None", (), {{"find_spec": staticmethod(lambda name, *_: (_ for _ in ()).throw(
    ModuleNotFoundError(name=name)) if name.split(".")[0] == "tuf" else None)}}))
del sys.modules["tuf"]
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "tuf" else found(name, *a)
from dynpin.clientstore import PinStore, enforce
store = PinStore({str(bank.folder / "pins")!r})
context = enforce(ssl.create_default_context(cafile={str(bank.folder / "ca.pem")!r}), store)
try:
    context.wrap_socket(socket.create_connection(("127.0.0.1", {bank.site.port})), server_hostname={HOST!r})
except ssl.SSLCertVerificationError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert "python-tuf is not installed" in told.stdout, told.stdout + told.stderr
    assert "python-tuf is not installed" in bank.outcome()


# -- the server --------------------------------------------------------------------------------------------------------


def test_a_policy_sends_both_directives(bank: Bank, tmp_path: Path) -> None:
    chain, backup = tmp_path / "chain.pem", tmp_path / "backup.pem"
    chain.write_bytes(b"".join(each.bytes() for each in bank.lost.cert_chain_pems))
    backup.write_bytes(bank.backup.cert_chain_pems[0].bytes())
    policy = Policy(keys=chain, backups=[backup], max_age=timedelta(days=1), roots=[], recovery=ROOT)
    assert policy.header is not None
    assert policy.header.recovery == ROOT
    text = 'hosts = ["bank.test"]\nkeys = ["chain.pem"]\nbackups = ["backup.pem"]\n[policy]\nmax_age = "1 day"\n'
    table = f'[recovery]\nroot = "{ROOT.root_text}"\nuri = "{ROOT.uri}"\n'
    file = tmp_path / "dynpin.toml"
    file.write_text(text + table)
    assert read_inventory(file).build().header == policy.header
    linted = dynpin("lint", str(policy.header), "--chain", str(chain))
    assert "directive-unknown" not in linted.output, linted.output
    assert "recovery-root" in dynpin("export", "nginx", "--inventory", str(file)).output
    file.write_text(text + table.replace("https://", "ftp://"))
    with pytest.raises(PolicyError, match=r"\[recovery\]: 'ftp://"):
        read_inventory(file)
