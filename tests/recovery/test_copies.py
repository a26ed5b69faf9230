"""Copies of the operator's folder, a backup, a wrong clock: nothing is published that clients would refuse."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import Result

from dynpin import Pin
from dynpin.deploy.recovery import ONLINE, Repository, SignedFiles, compare, read_signers, refresh
from tests.deploy.commands import dynpin
from tests.recovery.by_tuf import by_tuf_alone
from tests.recovery.operator import PASSPHRASE

A, B, C = (Pin(bytes([number]) * 32) for number in range(1, 4))
DAY = 86_400.0


class Office:
    """The operator's commands, in a folder that may be copied, and one client that visits again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.www = folder / "www"
        (folder / "passphrase").write_bytes(PASSPHRASE)
        (folder / "passphrase").chmod(0o600)
        assert self.do("init", "--threshold", "2", "--of", "3").exit_code == 0
        assert self.sign(A).exit_code == 0
        assert self.publish().exit_code == 0
        assert self.seen() == A

    def do(self, *arguments: str, copy: str = "recovery", now: float | None = None) -> Result:
        typed = ["--passphrase-file", str(self.folder / "passphrase")]
        asks = arguments[0] in ("init", "sign", "rotate-keys")
        at = [] if now is None else ["--now", datetime.fromtimestamp(now, UTC).isoformat()]
        return dynpin("recovery", *arguments, "--in", str(self.folder / copy), *(typed if asks else []), *at)

    def sign(self, pin: Pin, *options: str, copy: str = "recovery", now: float | None = None) -> Result:
        table = self.folder / "table.json"
        table.write_text(json.dumps([{"host": "bank.test", "pins": [str(pin)], "max_age": 60}]))
        return self.do("sign", str(table), "--yes", *options, copy=copy, now=now)

    def publish(self, *options: str, copy: str = "recovery", now: float | None = None) -> Result:
        return self.do("publish", str(self.www), *options, copy=copy, now=now)

    def refresh(self, *options: str, copy: str = "recovery", now: float | None = None) -> Result:
        return self.do("refresh", str(self.www), *options, copy=copy, now=now)

    def copies(self, name: str, of: str = "recovery") -> None:
        shutil.copytree(self.folder / of, self.folder / name)

    def key(self, number: int, copy: str = "recovery") -> tuple[str, str]:
        return "--key", str(self.folder / copy / "keys" / f"targets-{number}.v1.key.pem")

    def seen(self) -> Pin:
        """The list that the client accepts; it refuses all that is older than what it has seen."""
        root = (self.folder / "recovery" / "public" / "1.root.json").read_bytes()
        return by_tuf_alone(root, self.www, self.folder / "client").hosts["bank.test"].pins[0]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_copy_from_a_backup_publishes_nothing_older(office: Office) -> None:
    office.copies("backup")
    assert office.sign(B).exit_code == 0
    assert office.publish().exit_code == 0
    assert office.refresh().exit_code == 0
    assert office.seen() == B
    before = {file: file.read_bytes() for file in office.www.rglob("*.json")}
    for done in (
        office.publish(copy="backup"),
        office.refresh(copy="backup"),
        office.sign(C, copy="backup"),
        office.do("rotate-keys", "root", copy="backup"),
        office.do("status", copy="backup"),
    ):
        assert (done.exit_code, "old copy" in done.output, "catch-up" in done.output) == (1, True, True), done.output
    assert before == {file: file.read_bytes() for file in office.www.rglob("*.json")}
    # Nor if the first root is lost there.
    (office.www / "1.root.json").rename(office.folder / "1.root.json")
    refused = office.publish(copy="backup")
    assert (refused.exit_code, "old copy" in refused.output) == (1, True), refused.output
    (office.folder / "1.root.json").rename(office.www / "1.root.json")
    caught = office.do("catch-up", str(office.www), copy="backup")
    assert (caught.exit_code, "2.targets.json was copied" in caught.output) == (0, True), caught.output
    assert office.do("status", copy="backup").exit_code == 0
    assert office.sign(C, copy="backup").exit_code == 0
    assert office.publish(copy="backup").exit_code == 0
    assert office.seen() == C
    again = office.do("catch-up", str(office.www), copy="backup")
    assert (again.exit_code, "has nothing that" in again.output) == (0, True), again.output


def test_a_backup_that_lacks_only_timestamps_is_refreshed(office: Office) -> None:
    office.copies("backup")
    for _ in range(3):
        assert office.refresh().exit_code == 0
    assert office.seen() == A
    refused = office.publish(copy="backup")
    assert (refused.exit_code, "recovery refresh" in refused.output) == (1, True), refused.output
    assert office.refresh(copy="backup").exit_code == 0
    timestamp = SignedFiles(office.www).timestamp()
    assert timestamp is not None
    assert timestamp.signed.version == 5
    assert office.seen() == A


def test_two_copies_that_sign_the_same_version_are_reported(office: Office) -> None:
    office.copies("other")
    assert office.sign(B).exit_code == 0
    assert office.sign(C, copy="other").exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B
    refused = office.publish(copy="other")
    assert (refused.exit_code, "old copy" in refused.output) == (1, True), refused.output
    # It has been published elsewhere, so the other copy has its own version 2.
    elsewhere = office.do("publish", str(office.folder / "stick"), copy="other")
    assert elsewhere.exit_code == 0, elsewhere.output
    for done in (office.publish(copy="other"), office.do("status", str(office.www), copy="other")):
        assert (done.exit_code, "another version 2 of the list" in done.output) == (1, True), done.output
    assert office.sign(C, "--published", str(office.www), copy="other").exit_code == 1
    assert office.do("catch-up", str(office.www), copy="other").exit_code == 0
    assert (office.folder / "other" / "superseded" / "2.targets.json").is_file()
    # A client that has seen the other version 2 must get a higher one.
    assert office.sign(C, "--published", str(office.www), copy="other").exit_code == 0
    assert office.publish(copy="other").exit_code == 0
    assert office.seen() == C
    assert SignedFiles(office.www).newest("targets") == 3


def test_another_root_is_published_there(office: Office, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Office(tmp_path / "second")
    refused = second.do("publish", str(office.www))
    assert (refused.exit_code, "with another root" in refused.output) == (1, True), refused.output
    assert office.seen() == A


def test_files_from_a_stranger_are_reported_and_do_not_count(office: Office) -> None:
    (office.www / "9.root.json").write_bytes((office.www / "1.root.json").read_bytes())
    (office.www / "7.targets.json").write_text("{")
    (office.www / "8.snapshot.json").mkdir()
    planted = sorted(office.www.glob("[789].*.json"))
    told = office.do("status")
    assert told.exit_code == 1
    for file in planted:
        assert f"{file} was not published from {office.folder / 'recovery'}" in told.output
    # Publishing once more would change nothing.
    assert (told.output.count("remove it"), "recovery publish" in told.output) == (3, False)
    (office.www / "timestamp.json").write_text("[]")
    assert f"Do: dynpin recovery publish {office.www}" in office.do("status").output
    for file in planted:
        done = office.publish()
        assert (done.exit_code, "remove it" in done.output) == (1, True), done.output
        assert office.do("status").exit_code == 1
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()
    assert office.publish().exit_code == 0
    assert office.do("status").exit_code == 0
    assert office.seen() == A


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:300]),
    "another content": lambda file: file.write_bytes(file.read_bytes().replace(b":true", b":false")),
    "a list of nothing": lambda file: file.write_bytes(b"[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_first_root_that_is_damaged_is_named_with_a_way_back(office: Office, damage: str) -> None:
    file = office.folder / "recovery" / "public" / "1.root.json"
    DAMAGES[damage](file)
    done = [office.do("status"), office.publish(), office.refresh(), office.sign(B), office.do("rotate-keys")]
    for each in [*done, office.do("catch-up", str(office.www)), office.do("init")]:
        assert (each.exit_code, "another list" in each.output) == (2, False), each.output
    for each in done:
        assert str(file) in each.output
        assert f"openssl dgst -sha256 -binary {office.www / file.name} | base64" in each.output
    shutil.copy(office.www / file.name, file)
    assert office.do("status").exit_code == 0


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "missing"])
def test_a_first_root_that_is_damaged_where_it_is_served_is_put_back(office: Office, damage: str) -> None:
    served, own = (folder / "1.root.json" for folder in (office.www, office.folder / "recovery" / "public"))
    DAMAGES[damage](served)
    for each in (office.do("status"), office.publish(), office.do("catch-up", str(office.www))):
        assert (each.exit_code, f"Do: cp {own} {served}" in each.output) == (1, True), each.output
    shutil.copy(own, served)
    assert office.do("status").exit_code == 0


def test_the_same_root_in_other_bytes_is_not_called_another_list(office: Office) -> None:
    served = office.www / "1.root.json"
    served.write_bytes(served.read_bytes() + b"\n")
    done = office.do("status")
    assert (done.exit_code, "the same root in other bytes" in done.output) == (1, True), done.output


def test_keys_of_snapshot_and_timestamp_that_were_stolen_are_replaced(office: Office) -> None:
    office.copies("thief")
    thief = Repository(office.folder / "thief")
    signers = read_signers(sorted(thief.keys.glob("timestamp-*")), lambda: b"")
    for _ in range(5):
        refresh(thief, signers, now=time.time())
    shutil.copy(thief.public / "timestamp.json", office.www)
    assert office.seen() == A
    assert office.do("rotate-keys", "timestamp", "snapshot").exit_code == 0
    published = office.publish()
    assert published.exit_code == 0, published.output
    assert office.sign(B).exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B


def test_enough_keys_were_stolen_and_a_list_was_signed(office: Office) -> None:
    office.copies("thief")
    assert office.sign(C, "--above", "6", copy="thief").exit_code == 0
    assert office.publish(copy="thief").exit_code == 0
    assert office.seen() == C
    assert office.do("rotate-keys").exit_code == 0
    assert office.publish().exit_code == 1  # the thief's files are still there, which is reported
    for file in office.www.glob("7.*"):
        file.unlink()
    assert office.sign(B, "--above", "7").exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B
    assert SignedFiles(office.www).newest("targets") == 8


def test_after_new_keys_a_list_above_the_thiefs_replaces_the_one_that_waits(office: Office) -> None:
    assert office.do("rotate-keys").exit_code == 0
    assert "another list waits" in office.sign(B).output
    assert office.sign(B, "--above", "7").exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B
    assert SignedFiles(office.www).newest("targets") == 8


# -- signatures -------------------------------------------------------------------------------------------------------


def test_the_same_list_again_adds_a_signature(office: Office) -> None:
    first = office.sign(B, *office.key(1))
    assert (first.exit_code, "needs 1 more signature" in first.output) == (0, True), first.output
    second = office.sign(B, *office.key(2))
    assert (second.exit_code, "signed by enough keys" in second.output) == (0, True), second.output
    assert office.publish().exit_code == 0
    assert office.seen() == B


def test_another_list_does_not_discard_signatures(office: Office) -> None:
    assert office.sign(B, *office.key(1)).exit_code == 0
    refused = office.sign(C, *office.key(2))
    assert (refused.exit_code, "1 key signed it" in refused.output) == (1, True), refused.output
    assert office.do("sign", "--yes", *office.key(3)).exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B
    assert office.sign(B, *office.key(1)).exit_code == 0
    replaced = office.sign(C, "--replace")
    assert (replaced.exit_code, "signed by enough keys" in replaced.output) == (0, True), replaced.output


def test_signatures_of_another_copy_are_added(office: Office) -> None:
    office.copies("other")
    assert office.sign(B, *office.key(1)).exit_code == 0
    shutil.copytree(office.folder / "recovery" / "pending", office.folder / "other" / "pending", dirs_exist_ok=True)
    assert office.do("sign", "--yes", *office.key(2), copy="other").exit_code == 0
    assert office.do("sign", "--yes", *office.key(3)).exit_code == 0
    # Each copy has two signatures now, one in common.
    merged = office.do("sign", "--yes", "--with", str(office.folder / "other"), *office.key(1))
    assert merged.exit_code == 0, merged.output
    (waiting,) = Repository(office.folder / "recovery").pending()
    assert (waiting.signed, waiting.missing) == (3, 0)


def test_signatures_for_something_else_are_not_added(office: Office) -> None:
    office.copies("other")
    assert office.sign(B, *office.key(1)).exit_code == 0
    assert office.sign(C, *office.key(2), copy="other").exit_code == 0
    refused = office.do("sign", "--yes", "--with", str(office.folder / "other"), *office.key(3))
    assert (refused.exit_code, "choose one" in refused.output) == (1, True), refused.output


# -- keys -------------------------------------------------------------------------------------------------------------


def test_new_keys_are_as_many_as_before(office: Office) -> None:
    done = office.do("rotate-keys", "targets")
    assert done.exit_code == 0, done.output
    assert office.publish().exit_code == 0
    roles = Repository(office.folder / "recovery").root().signed.roles
    assert {role: (roles[role].threshold, len(roles[role].keyids)) for role in ("root", "targets", "timestamp")} == {
        "root": (2, 3),
        "targets": (2, 3),
        "timestamp": (1, 1),
    }
    fewer = office.do("rotate-keys", "targets", "--threshold", "1")
    assert (fewer.exit_code, "targets: 1 of 3 keys, not 2 of 3" in fewer.output) == (0, True), fewer.output


def test_new_keys_can_be_given_up_and_made_again(office: Office) -> None:
    assert office.do("rotate-keys", "timestamp").exit_code == 0
    recovery = office.folder / "recovery"
    secret = (recovery / "keys" / "timestamp-1.v2.key.pem").read_bytes()
    (recovery / "pending" / "root.json").unlink()
    assert office.do("rotate-keys", "timestamp").exit_code == 0
    assert (recovery / "superseded" / "timestamp-1.v2.key.pem").read_bytes() == secret
    assert office.publish().exit_code == 0
    assert office.do("status").exit_code == 0


def test_keys_that_others_can_read_are_reported(office: Office) -> None:
    key = office.folder / "recovery" / "keys" / "timestamp-1.v1.key.pem"
    key.chmod(0o644)
    done = office.refresh()
    assert (done.exit_code, f"chmod 600 {key}" in done.output) == (0, True), done.output
    assert office.do("status").exit_code == 1


def test_a_served_folder_that_nobody_can_read_is_reported(office: Office) -> None:
    office.www.chmod(0o700)
    done = office.refresh()
    assert (done.exit_code, f"chmod a+rx {office.www}" in done.output) == (0, True), done.output


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-400.0, -2.0, 400.0])
def test_a_wrong_clock_signs_nothing(office: Office, days: float) -> None:
    now = time.time() + days * DAY
    before = {file: file.read_bytes() for file in office.folder.rglob("*.json")}
    for done in (office.refresh(now=now), office.sign(A, now=now), office.do("rotate-keys", "timestamp", now=now)):
        assert (done.exit_code, "--accept-clock" in done.output) == (1, True), done.output
    assert before == {file: file.read_bytes() for file in office.folder.rglob("*.json")}
    assert office.do("refresh", "--accept-clock", now=now).exit_code in (0, 1)
    signed = Repository(office.folder / "recovery").signed()["timestamp"]
    assert signed.expires.timestamp() == pytest.approx(now + 7 * DAY, abs=2)


def test_a_snapshot_is_renewed_before_it_expires(office: Office) -> None:
    later = time.time() + 350 * DAY
    status = office.do("status", now=later)
    assert "the snapshot expires in 14 days" in status.output
    assert "recovery refresh" in status.output
    office.do("refresh", "--accept-clock", now=later)
    snapshot = Repository(office.folder / "recovery").files.snapshot().signed
    assert snapshot.expires.timestamp() > later + 360 * DAY
    assert office.publish("--accept-clock", now=later).exit_code == 1  # the list itself expires soon
    assert not SignedFiles(office.www).faults()


def test_publishing_an_old_list_is_reported(office: Office) -> None:
    done = office.publish(now=time.time() + 10 * DAY)
    assert (done.exit_code, "the timestamp has expired" in done.output) == (1, True), done.output


# -- at the same time -------------------------------------------------------------------------------------------------


def test_commands_at_once_follow_one_another(office: Office) -> None:
    repository = Repository(office.folder / "recovery")
    signers = read_signers([file for role in ONLINE for file in repository.keys.glob(f"{role}-*")], lambda: b"")
    failed: list[BaseException] = []

    def again() -> None:
        try:
            for _ in range(5):
                refresh(repository, signers, now=time.time())
        except BaseException as error:  # noqa: BLE001 - of another thread
            failed.append(error)

    threads = [threading.Thread(target=again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    timestamp = repository.files.timestamp()
    assert timestamp is not None
    assert timestamp.signed.version == 1 + 20
    assert compare(repository, office.www) == 1
