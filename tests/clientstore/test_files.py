"""Changes to a store's file while it is in use (RFC 7469 §2.3.3 requires that pins are kept)."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dynpin import KnownPinnedHost, StoreError
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import check
from tests.environments import ROOT

from .files import LEAF, OTHER, beside, pin_elsewhere


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pins.sqlite"


def remove_log(file: Path) -> None:
    beside(file, "-wal").unlink()


def remove_index(file: Path) -> None:
    beside(file, "-shm").unlink()


def remove_log_and_index(file: Path) -> None:
    remove_log(file)
    remove_index(file)


def replace_log(file: Path) -> None:
    shutil.copy(beside(file, "-wal"), beside(file, "-copy"))
    beside(file, "-copy").replace(beside(file, "-wal"))


def remove_file(file: Path) -> None:
    file.unlink()


def replace_file(file: Path) -> None:
    """Replace the file by an empty store, as a program does that finds no file."""
    other = file.with_name("other.sqlite")
    PinStore(other).close()
    other.replace(file)


def link_file(file: Path) -> None:
    os.link(file, file.with_name("second.sqlite"))


def copy_by_the_program(file: Path) -> None:
    """Close a descriptor of the file, which drops SQLite's locks: another process then thinks it is the last one."""
    file.read_bytes()
    pin_elsewhere(file, "other.test")


CHANGES = [remove_log, remove_index, replace_log, remove_file, replace_file, link_file, copy_by_the_program]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("write", [False, True], ids=["look-up", "write"])
def test_changes_of_the_files_are_noticed_at_the_next_use(
    file: Path, change: Callable[[Path], None], write: bool
) -> None:
    with PinStore(file) as store:
        store.pin("bank.test", [LEAF])
        store.known_host("unknown.test")
        change(file)
        with pytest.raises(StoreError) as caught:
            store.pin("late.test", [LEAF]) if write else store.known_host("unknown.test")
    said = str(caught.value)
    assert str(file) in said
    assert any(words in said for words in ("was removed or replaced", "2 names", "was removed while it was in use"))
    if change is remove_file:
        assert not file.exists()  # no new file was made


LOSES_ITS_LOG = """
import sys
from pathlib import Path
from dynpin import Pin, StoreError
from dynpin.clientstore import PinStore
from tests.clientstore import test_files
file = Path(sys.argv[1])
store = PinStore(file)
for number in range(300):
    store.pin(f"h{number}.test", [Pin(bytes([1]) * 32)])
getattr(test_files, sys.argv[2])(file)
if sys.argv[2] != "remove_log":  # where others cannot read the file either, until this process ends
    test_files.pin_elsewhere(file, "after.test")
for _ in range(2):
    try:
        store.pin("late.test", [Pin(bytes([1]) * 32)])
    except StoreError:
        continue
    raise AssertionError("it was acknowledged")
if sys.argv[3] == "close":
    store.close()
"""


@pytest.mark.parametrize("end", ["close", "leave"])
@pytest.mark.parametrize("change", [remove_log, remove_log_and_index, replace_log, copy_by_the_program])
def test_a_process_without_its_log_overwrites_no_writes_of_others(
    file: Path, change: Callable[[Path], None], end: str
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", LOSES_ITS_LOG, str(file), change.__name__, end]
    subprocess.run(command, check=True, timeout=240, cwd=ROOT)
    with PinStore(file) as store:
        hosts = {known.host for known in store.hosts()}
        assert store.database.select("PRAGMA integrity_check") == [("ok",)]
    assert "late.test" not in hosts
    assert change is remove_log or "after.test" in hosts


def test_a_checkpoint_and_vacuum_by_others_change_nothing(file: Path) -> None:
    with PinStore(file) as store:
        for number in range(50):
            store.pin(f"h{number}.test", [LEAF])
            with contextlib.closing(sqlite3.connect(file)) as other:
                other.execute(("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)")[number % 2])
            assert store.known_host(f"h{number}.test") is not None
        assert len(store) == 50


def test_a_checkpoint_that_is_half_done_is_no_damage(file: Path, tmp_path: Path) -> None:
    """The first page is merged already, and names pages that are only in the log, as after a kill."""
    behind = tmp_path / "behind.sqlite"
    with PinStore(file) as store, contextlib.closing(sqlite3.connect(file)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM facts").fetchall()  # while it reads, no log is merged
        now = store.clock()
        entries = [KnownPinnedHost(f"h{n}.test", (LEAF,), False, None, now, now + 9) for n in range(100)]
        assert store.merge(entries) == 100
        shutil.copyfile(file, behind)
        shutil.copyfile(beside(file, "-wal"), beside(behind, "-wal"))
    with contextlib.closing(sqlite3.connect(file)) as merged:
        ((pages,),) = merged.execute("PRAGMA page_count").fetchall()
    assert pages * 4096 == file.stat().st_size > behind.stat().st_size
    with behind.open("r+b") as half:
        half.write(file.read_bytes()[:4096])
    with PinStore(behind) as store:
        assert store.database.select("SELECT count(*) FROM hosts") == [(100,)]
    assert check(behind, now) == []


def test_a_store_that_is_put_back_works_again(file: Path) -> None:
    with PinStore(file) as store:
        store.pin("bank.test", [LEAF])
        file.rename(file.with_name("away"))
        with pytest.raises(StoreError):
            store.known_host("bank.test")
        file.with_name("away").rename(file)
        assert not store.validate("bank.test", [OTHER]).ok
