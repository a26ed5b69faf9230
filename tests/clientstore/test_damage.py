"""A damaged, full, read-only or unknown file: no pin is dropped silently, and no connection is let through."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from dynpin import KnownPinnedHost, Pin, StoreError
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import check, repair

from ..clock import BASE, Clock

LEAF, BACKUP, OTHER = (Pin(bytes([number]) * 32) for number in (1, 2, 5))
HEADER = f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=100000'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pins.sqlite"


@pytest.fixture
def filled(file: Path, clock: Clock) -> Path:
    """A store of many pages, closed."""
    with PinStore(file, clock=clock) as store:
        store.merge(
            KnownPinnedHost(f"h{number:04}.test", (LEAF, BACKUP), False, None, BASE, BASE + 100_000)
            for number in range(2_000)
        )
    return file


def names(path: Path, clock: Clock) -> set[str]:
    with PinStore(path, clock=clock) as store:
        return {entry.host for entry in store.hosts()}


# -- damage -----------------------------------------------------------------------------------------------------------


def test_a_file_that_was_cut_to_nothing_is_damage_and_not_a_new_store(filled: Path) -> None:
    filled.write_bytes(b"")
    with pytest.raises(StoreError, match="cut off"):
        PinStore(filled)
    assert filled.read_bytes() == b""
    assert "cut off" in check(filled, BASE)[0]
    with pytest.raises(StoreError, match="no host can be read"):
        repair(filled, BASE)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_refuses_and_is_repaired_as_far_as_it_goes(filled: Path, clock: Clock, share: float) -> None:
    os.truncate(filled, int(filled.stat().st_size * share))
    with pytest.raises(StoreError, match="dynpin hosts check"):
        PinStore(filled, clock=clock).known_host("h0000.test")
    assert check(filled, BASE)
    damaged = filled.read_bytes()
    if share < 0.2:  # the pages with the hosts are gone
        with pytest.raises(StoreError, match="no host can be read"):
            repair(filled, BASE)
        assert filled.read_bytes() == damaged
        return
    done = repair(filled, BASE)
    assert done.aside.read_bytes() == damaged
    assert check(filled, BASE) == []
    assert len(names(filled, clock)) == done.kept


def spoil(path: Path, where: Callable[[bytes], int], length: int = 4096) -> None:
    content = bytearray(path.read_bytes())
    at = where(bytes(content)) // 4096 * 4096
    content[at : at + length] = b"\xff" * length
    path.write_bytes(content)


def test_a_spoilt_page_is_noticed_and_the_other_pages_are_saved(filled: Path, clock: Clock) -> None:
    # The leaf page with one host in the middle of the table: the host's pins follow its name.
    spoil(filled, lambda content: content.index(b"h1000.test" + LEAF.digest))
    with PinStore(filled, clock=clock) as store, pytest.raises(StoreError, match="dynpin hosts check"):
        store.validate("h1000.test", [OTHER])
    assert "malformed" in " ".join(check(filled, BASE))
    done = repair(filled, BASE)
    saved = names(filled, clock)
    assert 1_900 < done.kept == len(saved) < 2_000
    assert {"h0000.test", "h0500.test", "h1500.test", "h1999.test"} <= saved
    assert check(filled, BASE) == []


def test_what_lies_between_two_damages_is_saved(filled: Path, clock: Clock) -> None:
    spoil(filled, lambda content: content.index(b"h0300.test" + LEAF.digest))
    spoil(filled, lambda content: content.index(b"h1700.test" + LEAF.digest))
    with contextlib.closing(sqlite3.connect(filled, isolation_level=None)) as other:
        for host in ("h0700.test", "h1400.test"):
            other.execute("UPDATE hosts SET report_uri = CAST(x'ff' AS TEXT) WHERE host = ?", (host,))
    done = repair(filled, BASE)
    saved = names(filled, clock)
    assert 1_900 < done.kept == len(saved) < 2_000
    assert {"h0000.test", "h0500.test", "h1000.test", "h1500.test", "h1999.test"} <= saved
    assert not {"h0300.test", "h0700.test", "h1400.test", "h1700.test"} & saved


@pytest.mark.parametrize("host", [b"h0000.test", b"h0999.test", b"h1000.test", b"h1999.test"])
@pytest.mark.parametrize("sign", [b"\x00", b"~", b"\x7f", b"\xe8"])
def test_a_damaged_name_of_one_host_hides_no_other_from_repair(filled: Path, host: bytes, sign: bytes) -> None:
    filled.write_bytes(filled.read_bytes().replace(host, sign + host[1:]))
    assert repair(filled, BASE).kept == 1_999


def test_repair_keeps_reports_and_overrides(file: Path, clock: Clock) -> None:
    from .queued import a_report, by_hand
    from .test_static import shipped

    with PinStore(file, clock=clock) as store:
        store.pin("a.test", [LEAF])
        by_hand(store).add(a_report(), "http://report.test/")
        store.preload([shipped("gone.test")], "app.toml")
        store.forget("gone.test")
    repair(file, BASE)
    with PinStore(file, clock=clock) as store:
        assert len(by_hand(store).pending()) == 1
        assert store.preload([shipped("gone.test")], "app.toml") == 0
        assert not store.validate("a.test", [OTHER]).ok


@pytest.mark.parametrize(
    "change",
    [
        "pins = x'00'",
        "pins = 'text'",
        "host = 'A.Test'",
        "host = 'other.test'",
        "expires_at = 'soon'",
        "expires_at = 1e300",
        "include_subdomains = 1",
        "source = 'header'",
        "digest = x''",
    ],
)
def test_a_changed_row_is_damage_and_not_a_missing_host(file: Path, clock: Clock, change: str) -> None:
    with PinStore(file, clock=clock) as store:
        store.pin("a.test", [LEAF])
        store.pin("b.test", [LEAF])
        store.database.write(lambda connection: connection.execute(f"UPDATE hosts SET {change} WHERE host = 'a.test'"))
        changed = change.partition("'")[2].rstrip("'").lower() if change.startswith("host") else "a.test"
        with pytest.raises(StoreError, match="is damaged"):
            store.hosts()
        if change != "host = 'A.Test'":  # no look-up finds this row
            with pytest.raises(StoreError, match=f"dynpin hosts forget {changed} "):
                store.validate(changed, [LEAF])
    assert "is damaged" in " ".join(check(file, BASE))
    repair(file, BASE)
    assert check(file, BASE) == []
    assert names(file, clock) == {"b.test"}


def test_a_page_in_the_wrong_place_is_damage_and_no_walk_without_an_end(filled: Path, clock: Clock) -> None:
    content = bytearray(filled.read_bytes())
    first, last = (content.index(host + LEAF.digest) // 4096 * 4096 for host in (b"h0000.test", b"h1999.test"))
    content[last : last + 4096] = content[first : first + 4096]  # each row by itself is sound
    filled.write_bytes(content)
    with PinStore(filled, clock=clock) as store:
        walk = islice(store.each(), 2_500)
        with pytest.raises(StoreError, match=r"'h0000.test' is not in its place .* --repair"):
            list(walk)
    assert "is not in its place" in " ".join(check(filled, BASE))
    assert repair(filled, BASE).kept == len(names(filled, clock)) > 1_900
    assert check(filled, BASE) == []


def test_a_damaged_row_can_be_forgotten(file: Path, clock: Clock) -> None:
    with PinStore(file, clock=clock) as store:
        store.pin("a.test", [LEAF])
        store.database.write(lambda connection: connection.execute("UPDATE hosts SET pins = x'00'"))
        assert store.forget("a.test")
        assert store.hosts() == []
        assert store.known_host("a.test") is None


def test_a_missing_file_with_its_wal_left_behind_is_not_a_new_store(file: Path, clock: Clock) -> None:
    store = PinStore(file, clock=clock)
    store.pin("a.test", [LEAF])
    shutil.copy(file.with_name("pins.sqlite-wal"), file.with_name("kept"))
    store.close()
    file.unlink()
    file.with_name("kept").rename(file.with_name("pins.sqlite-wal"))
    with pytest.raises(StoreError, match="is gone"):
        PinStore(file)
    assert not file.exists()


ALIVE_THEN_KILLED = """
import os, sys
from dynpin import Pin
from dynpin.clientstore import PinStore
store = PinStore(sys.argv[1])
for number in range(60):
    store.pin(f"late{number}.test", [Pin(bytes(32))])
os._exit(0)
"""


def test_the_advice_about_backups_restores_a_whole_one(file: Path, clock: Clock) -> None:
    # A program that was killed leaves its -wal. SQLite would read it instead of the backup beside it.
    backup = file.with_name("backup")
    with PinStore(backup, clock=clock) as store:
        for number in range(100):
            store.pin(f"kept{number}.test", [LEAF])
    subprocess.run([sys.executable, "-c", ALIVE_THEN_KILLED, str(file)], check=True)
    wal = file.with_name(f"{file.name}-wal")
    assert wal.stat().st_size > 0

    said: list[str] = []
    file.rename(file.with_name("away"))
    for empty in (False, True):  # missing, and cut off
        if empty:
            file.touch()
        with pytest.raises(StoreError) as caught:
            PinStore(file)
        said.append(str(caught.value))
    file.write_bytes(b"\0" * 8192)
    wal.rename(file.with_name("aside"))
    with pytest.raises(StoreError) as caught:
        repair(file, BASE)
    said.append(str(caught.value))
    file.with_name("aside").rename(wal)
    way_out = f"stop the programs that use it, remove {file.name}-wal and {file.name}-shm, then copy a backup to {file}"
    assert [way_out in text for text in said] == [True, True, True]

    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    shutil.copy(backup, file)
    assert names(file, clock) == {f"kept{number}.test" for number in range(100)}


def test_pins_that_others_may_change_are_a_finding(filled: Path) -> None:
    assert check(filled, BASE) == []
    filled.chmod(0o666)
    assert "others may write" in check(filled, BASE)[0]


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Sets the largest size of files: a write beyond it fails as on a full disk."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_refuses_the_new_and_keeps_the_old(
    file: Path, clock: Clock, small_files: Callable[[int], None]
) -> None:
    store = PinStore(file, clock=clock)
    assert store.note("a.test", HEADER, [LEAF]).outcome == "noted"
    small_files(file.with_name("pins.sqlite-wal").stat().st_size)

    def fill() -> None:
        for number in range(100):
            store.note(f"h{number}.example", HEADER, [LEAF])

    with pytest.raises(StoreError, match=r"disk|full|I/O"):
        fill()
    assert not store.validate("a.test", [OTHER]).ok
    assert store.validate("a.test", [LEAF]).ok
    small_files(resource.RLIM_INFINITY)
    assert store.note("later.test", HEADER, [LEAF]).outcome == "noted"
    store.close()
    assert {"a.test", "later.test"} <= names(file, clock)
    assert check(file, BASE) == []


# -- a file that cannot be written ------------------------------------------------------------------------------------

AS_NOBODY = """
import logging, os, sys
logging.basicConfig(level=logging.WARNING)
from dynpin import KnownPinnedHost, Pin, StoreError
from dynpin.clientstore import PinStore
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
leaf, backup, other = (Pin(bytes([n]) * 32) for n in (1, 2, 5))
header = f'pin-sha256="{leaf}"; pin-sha256="{backup}"; max-age=100000'
path = sys.argv[1]
"""


def as_nobody(path: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_NOBODY + textwrap.dedent(script), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that everybody can read and only its owner can write."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def readable(file: Path) -> None:
    for path in file.parent.glob("pins*"):
        path.chmod(0o444)
    if os.getuid() != 0:
        file.parent.chmod(0o555)


READ_ONLY = """
    with PinStore(path, clock=lambda: 1_800_000_000.0) as store:
        assert store.read_only
        assert not store.validate("a.test", [other]).ok
        assert store.validate("a.test", [leaf]).ok
        noting = store.note("b.test", header, [leaf])
        assert noting.outcome == "ignored" and "read-only" in noting.reason, noting
        try:
            store.forget("a.test")
        except StoreError as error:
            assert "permissions" in str(error), error
        else:
            raise AssertionError("it was forgotten")
"""


def test_a_read_only_store_is_enforced_and_notes_nothing(public: Path, clock: Clock) -> None:
    file = public / "pins.sqlite"
    with PinStore(file, clock=clock) as store:
        store.pin("a.test", [LEAF])
    readable(file)
    done = as_nobody(file, READ_ONLY)
    assert done.returncode == 0, done.stderr
    assert "b.test was not noted" in done.stderr


def test_a_read_only_store_that_its_owner_has_open_is_read_with_its_last_pins(public: Path, clock: Clock) -> None:
    file = public / "pins.sqlite"
    with PinStore(file, clock=clock) as store:
        store.pin("a.test", [LEAF])  # in the -wal, not merged
        readable(file)
        done = as_nobody(file, READ_ONLY)
    assert done.returncode == 0, done.stderr


def test_a_wal_that_cannot_be_read_is_not_ignored(public: Path, clock: Clock) -> None:
    file = public / "pins.sqlite"
    store = PinStore(file, clock=clock)
    store.pin("a.test", [LEAF])
    for suffix in ("", "-wal"):
        shutil.copy(public / f"pins.sqlite{suffix}", public / f"copied{suffix}")
        (public / f"copied{suffix}").chmod(0o444)
    store.close()
    readable(file)
    done = as_nobody(public / "copied", "PinStore(path)")
    assert "not merged yet" in done.stderr


def test_a_reader_of_a_read_only_store_sees_what_its_owner_writes(public: Path, clock: Clock) -> None:
    file = public / "pins.sqlite"
    with PinStore(file, clock=clock) as store:
        store.pin("a.test", [LEAF])
    readable(file)
    script = """
        with PinStore(path, clock=lambda: 1_800_000_000.0) as store:
            assert store.known_host("b.test") is None
            print("read", flush=True)
            sys.stdin.readline()
            assert store.known_host("b.test") is not None, "stale"
            assert not store.validate("a.test", [other]).ok
    """
    command = [sys.executable, "-c", AS_NOBODY + textwrap.dedent(script), str(file)]
    if os.getuid() != 0:
        pytest.skip("needs two users")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "read\n"
        with PinStore(file, clock=clock) as store:
            store.pin("b.test", [LEAF])
        file.chmod(0o444)
        _, err = reader.communicate("go\n", timeout=300)
    assert reader.returncode == 0, err
