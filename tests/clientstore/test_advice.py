"""The messages about a store file that cannot be used: the real cause, and a command that helps."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dynpin import Pin, StoreError
from dynpin.clientstore import PinStore
from dynpin.clientstore.store.advice import check_command, forget_command, store_error
from dynpin.clientstore.store.check import check, repair
from tests.environments import ROOT

from ..clock import Clock

NOW = 1_800_000_000.0
PINS = [Pin(bytes([number]) * 32) for number in (1, 2)]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    file = tmp_path / "pins.sqlite"
    with PinStore(file) as store:
        store.pin("bank.test", PINS)
    return file


def _said(file: Path) -> str:
    with pytest.raises(StoreError) as caught, PinStore(file) as store:
        store.hosts()
    return str(caught.value)


def in_a_process(code: str, *arguments: object) -> str:
    """The output of the code in a process of its own, which has its own limits."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout


OUT_OF_DESCRIPTORS = """
import contextlib, os, resource, sys
from dynpin.clientstore import PinStore
from dynpin.errors import StoreError
PinStore(sys.argv[1]).close()  # whatever is imported and opened once
os.access = lambda path, mode: mode == os.R_OK  # the store in a folder that cannot be written has the same cause
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
with contextlib.suppress(OSError):
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
said = []
for spare in range(3):
    for file in sys.argv[1:]:
        try:
            PinStore(file)
        except StoreError as error:
            said.append(str(error))
    os.close(held.pop())
print("\\n".join(said))
"""


@pytest.mark.skipif(os.name == "nt", reason="the limit is POSIX's")
def test_too_many_open_files_and_wrong_permissions_have_different_messages(filled: Path, tmp_path: Path) -> None:
    said = in_a_process(OUT_OF_DESCRIPTORS, filled, tmp_path / "new.sqlite").splitlines()
    assert len(said) >= 4  # an old store and a new one, without a descriptor and with a single one
    for line in said:
        assert "too many open files (ulimit -n)" in line
        assert "permissions" not in line


NO_ROOM = """
import os, resource, signal, sys
from dynpin.clientstore import PinStore
from dynpin.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    PinStore(sys.argv[1])
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="the limit is POSIX's")
@pytest.mark.parametrize("limit", [0, 4096, 20_480])
@pytest.mark.parametrize("name", ["pins.sqlite", "new.sqlite"])
def test_a_full_disk_and_damage_have_different_messages(filled: Path, name: str, limit: int) -> None:
    # SQLite calls it a "disk I/O error". A user who moved the file away for that would lose the pins.
    said = in_a_process(NO_ROOM, filled.with_name(name), limit)
    assert "free some space" in said
    assert "move the file away" not in said
    with PinStore(filled) as store:
        assert store.known_host("bank.test") is not None


def test_a_file_system_that_maps_no_file_is_no_full_disk(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_SHMMAP"  # as the module gives it for such a file system
    said = str(store_error(tmp_path / "pins", error))
    assert "put the store on a local disk" in said
    assert "free some space" not in said


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    said = _said(tmp_path)
    assert said == f"the pin store {tmp_path} is not a file but a folder; name a file"


def test_the_command_to_type_repairs_this_very_file(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    os.truncate(filled, filled.stat().st_size - 100)
    command = check_command(filled, "--repair")
    assert command in _said(filled)
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, f"{filled} is sound.\n"), done.stderr
    with PinStore(filled) as store:
        assert store.known_host("bank.test") is not None


@pytest.mark.parametrize("content", [b"", b"a letter to the bank, and no store\n" * 300], ids=["empty", "text"])
def test_the_message_about_a_file_that_is_no_store_offers_no_repair(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "letter"
    file.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        repair(file, NOW)
    for said in (_said(file), *check(file, NOW), str(caught.value)):
        assert "There is nothing in it to save. Name another file; or, to put a backup in its place, stop" in said
        assert "--repair" not in said
    assert file.read_bytes() == content


def test_a_head_that_only_the_log_still_has_is_repaired_from_there(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(filled)) as connection:
        connection.execute("VACUUM")  # every page is in the log now, and merged when the last connection closes
        shutil.copy(filled.with_name(f"{filled.name}-wal"), file.with_name(f"{file.name}-wal"))
    file.write_bytes(b"\0" * filled.stat().st_size)
    said = _said(file)
    assert check_command(file, "--repair") in said
    assert "nothing in it to save" not in said
    repair(file, NOW)
    with PinStore(file) as store:
        assert store.known_host("bank.test") is not None


def test_commands_are_whole_wherever_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_command(None) == "dynpin hosts check"
    assert forget_command("a;b.test", Path("my pins")) == f"dynpin hosts forget 'a;b.test' --store '{tmp_path}/my pins'"


OTHERS = {
    "newer": ("PRAGMA user_version=99", "by a newer dynpin .*upgrade dynpin"),
    "older": ("PRAGMA user_version=0", "by an older dynpin .*dynpin hosts export"),
    "negative": ("PRAGMA user_version=-1", "by an older dynpin .*dynpin hosts export"),
    "of the same number, with other columns": ("ALTER TABLE hosts DROP COLUMN offered_at", "by another dynpin"),
    "another program's": ("PRAGMA application_id=0", "of another program"),
}


@pytest.mark.parametrize(("change", "said"), OTHERS.values(), ids=list(OTHERS))
def test_what_is_of_another_version_is_no_damage_and_not_repaired(filled: Path, change: str, said: str) -> None:
    with closing(sqlite3.connect(filled)) as connection:
        connection.execute(change)
    before = filled.read_bytes()
    for told in (_said(filled), *check(filled, NOW)):
        assert re.search(said, told)
        assert "--repair" not in told
    with pytest.raises(StoreError, match=said):
        repair(filled, NOW)
    assert filled.read_bytes() == before
    assert not list(filled.parent.glob("*damaged*"))


def test_what_is_of_another_version_and_cut_off_is_not_repaired_either(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as connection:
        connection.execute("PRAGMA user_version=99")
    os.truncate(filled, filled.stat().st_size - 100)
    assert "--repair" not in _said(filled)
    with pytest.raises(StoreError, match="by a newer dynpin"):
        repair(filled, NOW)


def test_a_store_with_a_relative_path_does_not_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clock = Clock(NOW)
    monkeypatch.chdir(tmp_path)
    with PinStore("pins.sqlite", clock=clock) as store:
        store.pin("bank.test", PINS)
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))  # as a daemon does
        clock.forward(10.0)
        assert store.known_host("bank.test") is not None
        assert store.path == tmp_path / "pins.sqlite"
