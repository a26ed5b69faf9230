"""After a kill before any change to the disk each command can be run again, and no broken state is reported as fine."""

from __future__ import annotations

import itertools
import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadError, RepositoryError

from dynpin import Pin
from dynpin.deploy.recovery import SignedFiles
from dynpin.pin_list import PinList
from tests.recovery.by_tuf import by_tuf_alone
from tests.recovery.killing import KILLED, run
from tests.recovery.operator import PASSPHRASE

A, B = Pin(bytes([1]) * 32), Pin(bytes([2]) * 32)
TYPED = ("--passphrase-file", "../passphrase")
PUBLISH = ("recovery", "publish", "www")


def _key(role: str, number: int, version: int) -> tuple[str, str]:
    return "--key", f"recovery/keys/{role}-{number}.v{version}.key.pem"


def _sign(table: str, *keys: tuple[str, str]) -> tuple[str, ...]:
    return ("recovery", "sign", table, *TYPED, "--yes", *itertools.chain(*keys))


# An operator's actions, and the pins that are published at the end of each stage.
STAGES: dict[str, tuple[tuple[tuple[str, ...], ...], Pin]] = {
    "the first list": (
        (
            ("recovery", "init", "--threshold", "2", "--of", "2", *TYPED),
            _sign("first.json"),
            PUBLISH,
        ),
        A,
    ),
    "a timestamp": ((("recovery", "refresh", "www"),), A),
    "another list": (
        (_sign("second.json", _key("targets", 1, 1)), _sign("second.json", _key("targets", 2, 1)), PUBLISH),
        B,
    ),
    "new keys for all": ((("recovery", "rotate-keys", *TYPED), PUBLISH), B),
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    (tmp_path / "passphrase").chmod(0o600)
    work = tmp_path / "work"
    work.mkdir()
    for name, pin in (("first", A), ("second", B)):
        entry = {"host": "bank.test", "pins": [str(pin)], "max_age": 60}
        (work / f"{name}.json").write_text(json.dumps([entry]))
    return work


def _accepted(work: Path, client: Path) -> PinList | None:
    """The list that a new client accepts; None if it accepts none."""
    root = work / "www" / "1.root.json"
    if not root.is_file():
        return None
    try:
        return by_tuf_alone(root.read_bytes(), work / "www", client)
    except (DownloadError, RepositoryError):
        return None


def _published(work: Path, client: Path) -> tuple[Pin, ...]:
    pins = _accepted(work, client)
    assert pins is not None
    return pins.hosts["bank.test"].pins


def _kills(command: tuple[str, ...], work: Path, before: Path) -> Iterator[int]:
    """Kill the command before its first change, its second and so on, each time from the same state."""
    for number in itertools.count():
        shutil.rmtree(work)
        shutil.copytree(before, work)
        code, said = run(command, work, before=number)
        if code != KILLED:
            assert code == 0, said
            assert number >= 2
            return
        yield number


@pytest.mark.parametrize("stage", STAGES)
def test_each_command_can_be_run_again_after_a_kill(stage: str, work: Path, tmp_path: Path) -> None:
    for name, (commands, _) in STAGES.items():
        if name == stage:
            break
        for command in commands:
            assert run(command, work)[0] == 0
    commands, pin = STAGES[stage]
    before = tmp_path / "before"
    for index, command in enumerate(commands):
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(work, before)
        old = _accepted(work, tmp_path / "old")
        for number in _kills(command, work, before):
            where = f"{command} killed before change {number}"
            client = tmp_path / f"client-{index}-{number}"
            now = _accepted(work, client)
            code, said = run(("recovery", "status"), work)
            assert code != 0 or now is not None, f"{where}: called fine: {said}"
            assert now is not None or old is None, where
            # What was cut off is run again; where it was done already, that is said.
            again = run(command, work)
            assert again[0] in (0, 1), f"{where}: {again[1]}"
            for following in commands[index + 1 :]:
                code, said = run(following, work)
                assert code == 0 or "adds a signature" in said, f"{where}: {following}: {said}"
            assert _published(work, client) == (pin,), where
            code, said = run(("recovery", "status"), work)
            assert code == 0, f"{where}: {said}"
        shutil.rmtree(work)
        shutil.copytree(before, work)
        assert run(command, work)[0] == 0


def test_a_kill_in_catch_up_is_caught_up(work: Path, tmp_path: Path) -> None:
    for commands, _ in list(STAGES.values())[:2]:
        for command in commands:
            assert run(command, work)[0] == 0
    shutil.copytree(work / "recovery", tmp_path / "backup")
    for name in ("another list", "new keys for all"):
        for command in STAGES[name][0]:
            assert run(command, work)[0] == 0
    keys = work / "recovery" / "keys"
    shutil.rmtree(tmp_path / "backup" / "keys")
    shutil.copytree(keys, tmp_path / "backup" / "keys")
    shutil.rmtree(work / "recovery")
    shutil.copytree(tmp_path / "backup", work / "recovery")
    shutil.copytree(work, tmp_path / "before")
    catch_up = ("recovery", "catch-up", "www")
    for number in _kills(catch_up, work, tmp_path / "before"):
        client = tmp_path / f"client-{number}"
        assert _published(work, client) == (B,)
        for command in (catch_up, PUBLISH):
            code, said = run(command, work)
            assert code == 0, f"killed before {number}: {command}: {said}"
        assert _published(work, client) == (B,)
        assert run(("recovery", "status"), work)[0] == 0


@pytest.mark.parametrize("stage", ["the first list", "a timestamp", "new keys for all"])
def test_a_full_disk_is_reported_and_leaves_nothing_half_written(stage: str, work: Path) -> None:
    for name, (commands, pin) in STAGES.items():
        for command in commands:
            if name == stage:
                code, said = run(command, work, full=True)
                assert (code, "cannot be written" in said, "run the same command again" in said) == (2, True, True), (
                    said
                )
                assert not [each for each in work.rglob(".*") if each.is_file()]
                assert not [each for each in work.rglob("*.json") if not each.stat().st_size]
            assert run(command, work)[0] == 0, command
        if name == stage:
            assert _published(work, work.parent / "client") == (pin,)
            return


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_umask_neither_opens_keys_nor_closes_what_is_served(umask: int, work: Path) -> None:
    for commands, _ in list(STAGES.values())[:4]:
        for command in commands:
            assert run(command, work, umask=umask)[0] == 0
    for file in [work / "recovery" / "keys", *(work / "recovery" / "keys").iterdir()]:
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file
    for file in [work / "www", *(work / "www").rglob("*")]:
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode == (0o755 if file.is_dir() else 0o644), f"{file}: {mode:o}"
    assert not SignedFiles(work / "www").faults()
