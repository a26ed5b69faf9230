"""`dynpin hosts import` and `export`: whole files or none, of any size, from pipes and to pipes."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynpin import KnownPinnedHost, Pin
from dynpin.clientstore import PinStore
from dynpin.clientstore.store.formats import write_csv, write_jsonl, write_wget2
from dynpin.noting import DEFAULT_MAX_MAX_AGE

from .processes import COMMAND, called, dynpin

ONE, TWO = Pin(bytes(32)), Pin(b"\xfb" * 32)
NOW = int(time.time())
FORMATS = ("wget2", "json", "jsonl", "csv", "toml")
# Said once at an export to wget2, where static pins are among those that go out.
AS_NOTED = "Static pins become noted ones in this file: an import keeps them for 60 days at most.\n"


def static(count: int) -> list[KnownPinnedHost]:
    return [
        KnownPinnedHost(f"h{number:06}.test", (ONE, TWO), False, None, NOW, None, "static") for number in range(count)
    ]


def store_of(path: Path, entries: list[KnownPinnedHost]) -> Path:
    with PinStore(path) as store:
        assert store.merge(entries) == len(entries)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 12,000 hosts: more than formats that are read as a whole may have."""
    return store_of(tmp_path_factory.mktemp("large") / "pins", static(12_000))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return store_of(tmp_path / "small", static(3))


# -- import -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_the_beginning_of_stdin_tells_the_format(small: Path, form: str, tmp_path: Path) -> None:
    exported = called("hosts", "export", "--format", form, "--store", small).stdout
    # With a byte order mark before it, as editors on Windows save a file.
    done = dynpin("hosts", "import", "-", "--store", tmp_path / "other", stdin=b"\xef\xbb\xbf" + exported)
    assert (done.returncode, done.stdout) == (0, b"3 hosts imported\n"), done.stderr
    with PinStore(tmp_path / "other") as store:
        assert [entry.host for entry in store.each()] == ["h000000.test", "h000001.test", "h000002.test"]
        assert {entry.origin for entry in store.each()} == {"stdin"}


@pytest.mark.parametrize("form", ["wget2", "jsonl", "csv"])
def test_thousands_of_hosts_go_out_and_in(large: Path, form: str, tmp_path: Path) -> None:
    file = tmp_path / f"pins.{form}"
    done = called("hosts", "export", "--format", form, "-o", file, "--store", large)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", AS_NOTED.encode() if form == "wget2" else b"")
    done = called("hosts", "import", file, "--store", tmp_path / "other")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"12,000 hosts imported\n", b"")
    again = called("hosts", "import", file, "--store", tmp_path / "other").stdout
    # What wget2 noted is no newer than what is there; static pins are what a person wants now.
    left = b"0 hosts imported, 12,000 not taken: expired, or older than what is there\n"
    assert again == (left if form == "wget2" else b"12,000 hosts imported\n")


WRITERS = {"wget2": write_wget2, "jsonl": write_jsonl, "csv": write_csv}
BAD = {"wget2": "h.test 0 x 0\n", "jsonl": '{"host": "h.test"}\n', "csv": "h.test,,,,,,,,,\n"}


@pytest.mark.parametrize("form", WRITERS)
def test_a_bad_line_behind_thousands_changes_nothing(small: Path, form: str, tmp_path: Path) -> None:
    file = tmp_path / f"pins.{form}"
    text = "".join(WRITERS[form](static(6_000)))
    file.write_text(text + BAD[form])
    done = called("hosts", "import", file, "--store", small)
    assert (done.returncode, done.stdout) == (2, b"")
    place = "row" if form == "csv" else "line"
    assert done.stderr.decode().startswith(f"dynpin: {file}: {place} {text.count(chr(10)) + 1}: ")
    with PinStore(small) as store:
        assert len(store) == 3


def test_an_import_that_was_stopped_has_changed_nothing_and_can_be_run_again(small: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pins.csv"
    os.mkfifo(pipe)
    text = "".join(write_csv(static(6_000)))
    with subprocess.Popen(
        [*COMMAND, "hosts", "import", pipe, "--store", small], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        with pipe.open("w") as file:
            file.write(text)  # more than a pipe holds, so most of it was read
            file.flush()
            command.send_signal(signal.SIGINT)
            assert command.wait(60) == 130
        assert command.stderr is not None
        assert command.stderr.read() == b"dynpin: stopped\n"
    with PinStore(small) as store:
        assert len(store) == 3
    pipe.unlink()
    pipe.write_text(text)
    assert called("hosts", "import", pipe, "--store", small).stdout == b"6,000 hosts imported\n"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no endless file")
@pytest.mark.parametrize("form", ["wget2", "jsonl", "csv", "json"])
def test_a_line_without_an_end_does_not_fill_the_memory(form: str, tmp_path: Path) -> None:
    done = dynpin("hosts", "import", "-", "--format", form, "--store", tmp_path / "pins", shell="< /dev/zero")
    assert done.returncode == 2
    said = "a JSON list takes up to 10,000" if form == "json" else f"line 1 is longer than a line of {form} may be"
    assert said in done.stderr.decode()


def test_a_list_that_is_too_long_names_the_formats_to_use_instead(tmp_path: Path) -> None:
    file = tmp_path / "pins.json"
    file.write_text(json.dumps([{"host": f"h{number}.test", "pins": [str(ONE)]} for number in range(10_001)]))
    done = called("hosts", "import", file, "--store", tmp_path / "pins")
    assert done.returncode == 2
    assert "up to 10,000 entries, and there are more: use JSON lines (jsonl), CSV or wget2" in done.stderr.decode()


def test_the_name_of_a_file_speaks_to_no_terminal(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "\x1b[2Jpins.csv"
    file.write_text(f"host,pins\na.test,{ONE}\n")
    assert called("hosts", "import", file, "--store", small).returncode == 0
    with PinStore(small) as store:
        known = store.known_host("a.test")
        assert known is not None
        assert known.origin == "\N{REPLACEMENT CHARACTER}[2Jpins.csv"
    file.write_text("host,pins\n\x1b[2J,\n")
    done = called("hosts", "import", file, "--store", small)
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr


def test_a_noted_host_is_kept_no_longer_than_a_header_could_have_it_kept(tmp_path: Path) -> None:
    file = tmp_path / "hpkp"
    lines = (f"{host} 0 {created} {10**18}\n*sha256 {ONE}\n" for host, created in (("a.test", 10**9), ("b.test", NOW)))
    file.write_text("".join(lines))  # wget2 knows no cap
    done = called("hosts", "import", file, "--store", tmp_path / "pins")
    assert done.stdout == b"1 host imported, 1 not taken: expired, or older than what is there\n"
    with PinStore(tmp_path / "pins") as store:
        assert [(entry.host, entry.expires_at) for entry in store.each()] == [("b.test", NOW + DEFAULT_MAX_MAX_AGE)]


# -- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_pipe_that_is_closed_ends_an_export_quietly(large: Path, small: Path, form: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    store = small if form in ("json", "toml") else large
    done = dynpin("hosts", "export", "--format", form, "--store", store, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, AS_NOTED.encode() if form == "wget2" else b"")


@pytest.mark.parametrize("form", ["json", "toml"])
def test_a_file_is_left_as_it_is_where_the_export_fails(large: Path, form: str, tmp_path: Path) -> None:
    file = tmp_path / "pins"
    file.write_text("what was here")
    done = called("hosts", "export", "--format", form, "-o", file, "--store", large)
    assert done.returncode == 2
    assert "up to 10,000 entries" in done.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["pins"]
    assert file.read_text() == "what was here"


def test_a_disk_that_is_full_leaves_the_old_file_and_no_part_of_a_new_one(large: Path, tmp_path: Path) -> None:
    file = tmp_path / "pins"
    file.write_text("what was here")
    # No file may be longer than 100 blocks of 512 bytes; the store's own are not written to.
    command = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *COMMAND]
    done = subprocess.run(
        [*command, "hosts", "export", "--format", "csv", "-o", file, "--store", large], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.decode().strip() == f"dynpin: {os.strerror(errno.EFBIG)}"
    assert [path.name for path in tmp_path.iterdir()] == ["pins"]
    assert file.read_text() == "what was here"


def test_the_file_keeps_its_mode_and_a_link_stays_a_link(small: Path, tmp_path: Path) -> None:
    file, link = tmp_path / "pins.csv", tmp_path / "link.csv"
    file.write_text("")
    file.chmod(0o640)
    link.symlink_to(file)
    assert called("hosts", "export", "--format", "csv", "-o", link, "--store", small).returncode == 0
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_text().count("\n") == 4


def test_a_folder_that_is_not_there_is_named(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "pins.csv"
    done = called("hosts", "export", "--format", "csv", "-o", file, "--store", small)
    assert (done.returncode, done.stderr.decode()) == (
        2,
        f"dynpin: {file} cannot be written: No such file or directory; check the path\n",
    )


def test_a_device_is_written_to_and_not_replaced(small: Path) -> None:
    done = called("hosts", "export", "--format", "csv", "-o", "/dev/null", "--store", small)
    assert done.returncode == 0
    assert Path("/dev/null").is_char_device()


def test_a_file_for_another_program_is_utf_8_whatever_the_terminal_is(tmp_path: Path) -> None:
    path = tmp_path / "pins"
    with PinStore(path) as store:
        store.pin("a.test", [ONE], report_uri="https://ü.test/")
    for form in ("csv", "toml"):
        done = dynpin("hosts", "export", "--format", form, "--store", path, environment={"PYTHONIOENCODING": "latin-1"})
        assert "https://ü.test/" in done.stdout.decode("utf-8")


def test_what_wget2_cannot_be_told_is_said_on_stderr(tmp_path: Path) -> None:
    entries = [
        KnownPinnedHost("a.test", (ONE,), False, None, NOW, None, "static"),
        KnownPinnedHost("b.test", (), False, None, NOW, None, "static", (bytes(32),)),
    ]
    done = called("hosts", "export", "--format", "wget2", "--store", store_of(tmp_path / "pins", entries))
    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == [
        AS_NOTED.strip(),
        "b.test is left out: it is pinned to certificates, and wget2's format has none",
    ]
    back = dynpin("hosts", "import", "-", "--store", tmp_path / "other", stdin=done.stdout)
    assert back.stdout == b"1 host imported\n"


# -- the bar ----------------------------------------------------------------------------------------------------------


def on_a_terminal(*arguments: object) -> tuple[bytes, bytes]:
    """What the command prints to a pipe on stdout, and to a terminal on stderr."""
    terminal, stderr = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=stderr, env=environment
    ) as command:
        os.close(stderr)
        shown, printed = b"", b""
        # A small pipe and a small terminal: both are read as they fill.
        while chunk := _read(terminal):
            shown += chunk
        assert command.stdout is not None
        printed = command.stdout.read()
    os.close(terminal)
    assert command.returncode == 0, shown
    return printed, shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux says EIO when nobody has the other end
        return b""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_a_person_who_waits_sees_how_far_it_is(large: Path, tmp_path: Path) -> None:
    file = tmp_path / "pins.csv"
    printed, shown = on_a_terminal("hosts", "export", "--format", "csv", "-o", file, "--store", large)
    assert printed == b""
    assert b"hosts written" in shown
    printed, shown = on_a_terminal("hosts", "import", file, "--store", tmp_path / "other")
    assert printed == b"12,000 hosts imported\n"
    assert b"hosts merged" in shown
    assert file.read_text().count("\n") == 12_001


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_the_bar_does_not_get_between_the_lines_of_an_export(small: Path) -> None:
    printed, _ = on_a_terminal("hosts", "export", "--format", "jsonl", "--store", small)
    assert [json.loads(line)["host"] for line in printed.splitlines()] == [
        "h000000.test",
        "h000001.test",
        "h000002.test",
    ]
