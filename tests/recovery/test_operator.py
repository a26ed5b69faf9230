"""The operator's side: the files are plain TUF, and nothing is published that too few keys have signed."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from dynpin import Pin, RecoveryError
from dynpin.deploy.recovery import OFFLINE, Repository, create, differences, expiries, read_signers
from dynpin.pin_list import PIN_LIST, ListedHost, PinList
from tests.deploy.commands import dynpin
from tests.recovery.by_tuf import by_tuf_alone
from tests.recovery.operator import PASSPHRASE, Operator

A, B, C = (Pin(bytes([number]) * 32) for number in range(1, 4))
DAY = 86_400.0


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_tufs_own_client_reads_the_list(operator: Operator, tmp_path: Path) -> None:
    operator.sign({"bank.test": (A, B)})
    assert by_tuf_alone(operator.root, operator.www, tmp_path / "client").hosts == {"bank.test": ListedHost((A, B))}
    operator.sign({"bank.test": (B, C), "shop.test": ()})
    assert by_tuf_alone(operator.root, operator.www, tmp_path / "client").hosts["bank.test"].pins == (B, C)


def test_offline_keys_are_encrypted_and_no_key_is_published(operator: Operator) -> None:
    operator.sign({"bank.test": (A,)})
    for file in operator.repository.keys.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert (b"ENCRYPTED" in file.read_bytes()) is file.name.startswith(OFFLINE)
    assert not [file for file in operator.www.rglob("*") if file.is_file() and b"PRIVATE" in file.read_bytes()]
    with pytest.raises(RecoveryError, match="passphrase"):
        read_signers(operator.keys("root"), lambda: b"another passphrase")


def test_a_list_waits_for_signatures_of_several_machines(tmp_path: Path) -> None:
    operator = Operator(tmp_path, threshold=2, of=3)
    first, second, _ = operator.keys("targets")
    with pytest.raises(RecoveryError, match="needs 1 more signature"):
        operator.sign({"bank.test": (A,)}, keys=[first])
    assert not [*operator.www.iterdir()]
    # The same key twice is one signature.
    assert operator.repository.add_signatures(read_signers([first], lambda: PASSPHRASE)) == 0
    again = Repository(operator.repository.folder)
    assert again.add_signatures(read_signers([second], lambda: PASSPHRASE)) == 1
    operator.publish()
    assert by_tuf_alone(operator.root, operator.www, tmp_path / "client").hosts["bank.test"].pins == (A,)


def test_clients_walk_from_the_first_root_however_often_keys_change(operator: Operator, tmp_path: Path) -> None:
    operator.sign({"bank.test": (A,)})
    digest = operator.repository.root_digest
    by_tuf_alone(operator.root, operator.www, tmp_path / "old")
    for _ in range(3):
        operator.rotate("root", "targets", "snapshot", "timestamp", threshold=2, of=3)
    assert operator.repository.root_digest == digest
    assert sorted(each.name for each in operator.www.glob("*.root.json")) == [f"{n}.root.json" for n in range(1, 5)]
    for client in ("old", "new"):
        assert by_tuf_alone(operator.root, operator.www, tmp_path / client).hosts["bank.test"].pins == (A,)
    # What the old keys would sign now is not a list.
    with pytest.raises(RecoveryError, match="needs 2 more"):
        operator.sign({"bank.test": (C,)}, keys=[file for file in operator.keys("targets") if ".v1." in file.name])


def test_a_new_root_needs_the_old_one(operator: Operator) -> None:
    operator.sign({"bank.test": (A,)})
    operator.repository.propose_keys(["root"], threshold=1, of=1, passphrase=PASSPHRASE, now=time.time())
    assert [(each.role, each.missing) for each in operator.repository.pending()] == [("root", 1)]
    with pytest.raises(RecoveryError, match="needs 1 more signature"):
        operator.repository.propose_keys(["root"], threshold=1, of=1, passphrase=PASSPHRASE, now=time.time())
    with pytest.raises(RecoveryError, match="version 2 of the root needs 1 more"):
        operator.publish()


def test_a_step_that_was_killed_is_completed(operator: Operator, tmp_path: Path) -> None:
    operator.sign({"bank.test": (A,)})
    operator.repository.propose(PinList({"bank.test": ListedHost((B,))}), now=time.time())
    operator.repository.add_signatures(read_signers(operator.keys("targets"), lambda: PASSPHRASE))
    # Killed right after the list was moved: no snapshot names it yet.
    pending = operator.repository.folder / "pending"
    (operator.repository.public / "2.targets.json").write_bytes((pending / "targets.json").read_bytes())
    digest = PinList({"bank.test": ListedHost((B,))}).to_bytes()
    (operator.repository.public / "targets" / f"{_sha256(digest)}.{PIN_LIST}").write_bytes(digest)
    assert by_tuf_alone(operator.root, operator.www, tmp_path / "client").hosts["bank.test"].pins == (A,)
    operator.publish()
    assert by_tuf_alone(operator.root, operator.www, tmp_path / "client").hosts["bank.test"].pins == (B,)


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_an_expiry_is_reported_in_time(tmp_path: Path) -> None:
    operator = Operator(tmp_path, now=0.0)
    operator.sign({"bank.test": (A,)}, now=0.0)
    signed = operator.repository.signed()
    assert [each.problem for each in expiries(signed, DAY)] == [None] * 4
    told = {each.role: each.problem for each in expiries(signed, 340 * DAY) if each.problem is not None}
    assert set(told) == {"targets", "snapshot", "timestamp"}
    assert "has expired 333 days ago" in told["timestamp"]


@pytest.mark.parametrize(("threshold", "of"), [(0, 1), (3, 2), (1, 99)])
def test_a_threshold_that_nobody_reaches_is_refused(threshold: int, of: int, tmp_path: Path) -> None:
    with pytest.raises(RecoveryError):
        create(tmp_path / "recovery", threshold=threshold, of=of, passphrase=PASSPHRASE, now=0.0)
    assert not (tmp_path / "recovery").exists()


def test_nothing_is_overwritten(operator: Operator) -> None:
    before = operator.root
    with pytest.raises(FileExistsError):
        create(operator.repository.folder, threshold=1, of=1, passphrase=PASSPHRASE, now=0.0)
    assert operator.root == before


def test_the_differences_are_named_pin_by_pin() -> None:
    old = PinList({"a.test": ListedHost((A, B)), "gone.test": ListedHost((A,))})
    new = PinList({"a.test": ListedHost((B, C)), "new.test": ListedHost((A,), True), "free.test": ListedHost(())})
    assert differences(old, new) == [
        f"  + a.test {C}",
        f"  - a.test {A}",
        "+ free.test: released, clients forget it",
        "- gone.test: no longer in the list; clients keep what they have",
        "+ new.test: with its subdomains",
        f"  + new.test {A}",
    ]


def test_the_commands_lead_from_keys_to_published_files(tmp_path: Path) -> None:
    site, secret = tmp_path / "site", tmp_path / "secret"
    secret.write_bytes(PASSPHRASE)
    secret.chmod(0o600)
    assert dynpin("lab", "ca", str(site), "www.example.test").exit_code == 0
    typed = ["--passphrase-file", str(secret)]
    assert dynpin("init", str(site / "fullchain.pem"), "--out", str(tmp_path), *typed).exit_code == 0
    folder = ["--in", str(tmp_path / "recovery")]
    made = dynpin("recovery", "init", *folder, *typed, "--threshold", "2", "--of", "2")
    assert made.exit_code == 0, made.output
    root = Repository(tmp_path / "recovery").recovery("https://r.example").root_text
    assert f'root = "{root}"' in made.output
    asked = dynpin("recovery", "sign", str(tmp_path / "dynpin.toml"), *folder, *typed)
    assert (asked.exit_code, "--yes" in asked.output) == (2, True)
    first = ["--key", str(tmp_path / "recovery/keys/targets-1.v1.key.pem")]
    signed = dynpin("recovery", "sign", str(tmp_path / "dynpin.toml"), *folder, *typed, *first, "--yes")
    assert (signed.exit_code, "needs 1 more" in signed.output) == (0, True), signed.output
    assert dynpin("recovery", "publish", str(tmp_path / "www"), *folder).exit_code == 1
    assert dynpin("recovery", "status", *folder).exit_code == 1
    assert dynpin("recovery", "sign", *folder, *typed, "--yes").exit_code == 0
    published = dynpin("recovery", "publish", str(tmp_path / "www"), *folder)
    assert (published.exit_code, "5 files" in published.output) == (0, True), published.output
    assert dynpin("recovery", "status", *folder).exit_code == 0
    assert dynpin("recovery", "refresh", str(tmp_path / "www"), *folder).exit_code == 0
    assert f"Next: dynpin recovery publish {tmp_path / 'www'}" in dynpin("recovery", "refresh", *folder).output
    # Cron would refresh a copy that nobody reads.
    unmounted = dynpin("recovery", "refresh", str(tmp_path / "wwww"), *folder)
    assert (unmounted.exit_code, "check that it is mounted" in unmounted.output) == (1, True), unmounted.output
    assert not (tmp_path / "wwww").exists()
    assert dynpin("recovery", "publish", str(tmp_path / "www"), *folder).exit_code == 0
    late = dynpin("recovery", "status", *folder, "--now", "2099-01-01", "--json")
    assert (late.exit_code, "has expired" in late.output) == (1, True)
    assert dynpin("recovery", "rotate-keys", "timestamp", *folder, *typed).exit_code == 0
    assert dynpin("recovery", "publish", str(tmp_path / "www"), *folder).exit_code == 0
    assert (tmp_path / "www" / "2.root.json").is_file()


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("passphrase").write_bytes(b"correct horse battery")
    assert dynpin("recovery", "init", "--passphrase-file", "passphrase").exit_code == 0
    for name, content in {"cut.json": b"[", "cut.csv": b"", "other.jsonl": b"\xff"}.items():
        Path(name).write_bytes(content)
        said = dynpin("recovery", "sign", name, "--yes", "--passphrase-file", "passphrase")
        assert (said.exit_code, said.stderr.startswith(f"dynpin: {name}")) == (2, True), said.output
