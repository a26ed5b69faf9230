"""Streams as shells hand them over: of another encoding, closed, full, or with nobody behind them."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.clientstore import PinStore

from .processes import dynpin

BACKUP, SPARE = Pin(bytes(range(32))), Pin(bytes(range(1, 33)))
HEADER = f'pin-sha256="{BACKUP}"; max-age=é'
# What is typed in the folder below, and the exit code: 1 is a finding.
TYPED = {
    "the table of hosts": ("hosts list --store pins", 0),
    "a host that is not pinned": ("hosts show other.test --store pins", 1),
    "a rotation": ("rotate status", 0),
    "a rotation that begins": (f"rotate plan --to {BACKUP} --backup {SPARE} --start", 0),
    "a header with faults": ("lint HEADER", 1),
    "keys": ("keys list site.pem", 1),
    "a chain that locks out": ("guard other.pem", 1),
    "a closed port": ("check https://localhost:1/ü --address 127.0.0.1", 2),
    "a token with a name": ("collect tokens add --name é --storage reports", 0),
    "the tokens": ("collect tokens list --storage kept", 0),
    "help in panels": ("--help", 0),
    "wrong usage": ("hosts show", 2),
}
# Those that change something, and how it is seen.
RECORDS: dict[str, Callable[[Path], bool]] = {
    "a rotation that begins": lambda folder: b"planned" in (folder / "dynpin-history.json").read_bytes(),
    "a token with a name": lambda folder: (folder / "reports").exists(),
}
# What stderr has besides.
SAID = {"a token with a name": rb"dynpin: made a new storage: [^\n]+\n"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    authority = trustme.CA()
    for name in ("site", "other"):
        certificate = authority.issue_cert("bank.test")
        (folder / f"{name}.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
    leaf = Pin.from_file(folder / "site.pem")
    with PinStore(folder / "pins") as store:
        for host in ("bank.test", "a.test", "b.test"):
            store.pin(host, [leaf, BACKUP], expires_at=time.time() + 1e6)
    header = PublicKeyPins((leaf, BACKUP), max_age=86_400)
    recorded = dynpin(
        *("rotate", "record", "--host", "bank.test", "--header", header, "--chain", "site.pem"), folder=folder
    )
    assert recorded.returncode == 0
    assert dynpin("collect", "tokens", "add", "--name", "é✓", "--storage", "kept", folder=folder).returncode == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "here"))


@pytest.fixture
def nobody() -> Iterator[int]:
    """A pipe from which nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def words(typed: str) -> list[str]:
    return [HEADER if word == "HEADER" else word for word in typed.split()]


# The poorest for each command; the others differ in which characters are replaced, and one function replaces them.
@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        *((name, "ascii") for name in TYPED),
        *(("the table of hosts", encoding) for encoding in ("cp1252", "latin-1")),
        *(("a rotation that begins", encoding) for encoding in ("cp1252", "latin-1")),
        *(("help in panels", encoding) for encoding in ("cp1252", "latin-1")),
    ],
)
def test_what_a_stream_cannot_hold_is_replaced(folder: Path, name: str, encoding: str) -> None:
    typed, code = TYPED[name]
    done = dynpin(*words(typed), environment={"PYTHONIOENCODING": encoding}, folder=folder)
    said = done.stdout.decode(encoding) + done.stderr.decode(encoding)
    assert done.returncode == code, said
    assert said.strip()
    assert "codec" not in said
    assert name not in RECORDS or RECORDS[name](folder)


def test_signs_keep_their_meaning(folder: Path) -> None:
    shown = {
        encoding: dynpin("lint", HEADER, environment={"PYTHONIOENCODING": encoding}, folder=folder).stdout
        for encoding in ("utf-8", "ascii", "latin-1")
    }
    assert "RFC 7469 §2" in shown["utf-8"].decode()
    assert "RFC 7469 §2" in shown["latin-1"].decode("latin-1")
    assert "RFC 7469 section 2" in shown["ascii"].decode("ascii")
    assert "max-age=?" in shown["ascii"].decode("ascii")
    drawn = dynpin("rotate", "status", environment={"PYTHONIOENCODING": "ascii"}, folder=folder).stdout.decode("ascii")
    assert "# deployed, or sent  . held by clients" in drawn
    assert "?" not in drawn


@pytest.mark.parametrize(
    ("name", "closed"),
    [*((name, "<&- >&- 2>&-") for name in TYPED), *((name, ">&-") for name in ("a header with faults", *RECORDS))],
)
def test_closed_streams_change_no_exit_code(folder: Path, name: str, closed: str) -> None:
    typed, code = TYPED[name]
    before = {path: path.read_bytes() for path in folder.iterdir() if path.suffix == ".pem"}
    done = dynpin(*words(typed), shell=closed, folder=folder)
    assert done.returncode == code, done
    assert name not in RECORDS or RECORDS[name](folder)
    # What was printed went nowhere, and into no file that was opened meanwhile.
    assert before == {path: path.read_bytes() for path in before}
    assert json.loads((folder / "dynpin-history.json").read_text())


@pytest.mark.parametrize("name", ["the table of hosts", "a header with faults", "help in panels", *RECORDS])
def test_nobody_reads_and_the_command_ends_as_it_would_have(folder: Path, nobody: int, name: str) -> None:
    typed, code = TYPED[name]
    done = dynpin(*words(typed), stdout=nobody, folder=folder)
    assert done.returncode == code
    assert re.fullmatch(SAID.get(name, b""), done.stderr)
    assert name not in RECORDS or RECORDS[name](folder)


def test_nobody_reads_and_all_is_done(folder: Path, nobody: int) -> None:
    done = dynpin("hosts", "forget", "a.test", "b.test", "bank.test", "--store", "pins", stdout=nobody, folder=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    with PinStore(folder / "pins") as store:
        assert store.hosts() == []


def test_a_reader_that_has_enough(folder: Path) -> None:
    done = dynpin("--help", shell="| head -n 3", folder=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Usage: " in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", [name for name, (_, code) in TYPED.items() if code < 2])
def test_a_full_disk_is_told_when_all_is_done(folder: Path, name: str) -> None:
    done = dynpin(*words(TYPED[name][0]), shell=">/dev/full", folder=folder)
    last = done.stderr.splitlines()[-1] if done.stderr else b""
    if name == "a host that is not pinned":  # which is told on stderr alone
        assert done.returncode == 1
    else:
        assert (done.returncode, last) == (2, b"dynpin: the results cannot be written: No space left on device")
    assert name not in RECORDS or RECORDS[name](folder)


@pytest.mark.parametrize("shell", ["<&-", "</dev/null", "0>/dev/null"], ids=["closed", "empty", "not for reading"])
@pytest.mark.parametrize(
    "typed",
    [
        "lint -",
        "hosts import - --store new --format json",
        "hosts import - --store new --format toml",
        "keys new bank.test --passphrase-file -",
    ],
)
def test_nothing_on_stdin_is_told(folder: Path, typed: str, shell: str) -> None:
    done = dynpin(*typed.split(), shell=shell, folder=folder)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"") or "--format toml" in typed, said
    assert re.match("dynpin: .", said) or done.returncode == 0
    assert "Errno" not in said
