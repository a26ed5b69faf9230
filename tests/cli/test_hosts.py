"""`dynpin hosts`: what a person finds, understands, removes, pins, imports and fixes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import sqlite3
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PinValidationError
from dynpin.cli.app import app
from dynpin.cli.errors import run
from dynpin.clientstore import PinStore, enforce
from dynpin.lab.network import TLSServer

from ..clientstore.pin_files import CHROMIUM, CHROMIUM_KEYS
from ..clientstore.world import leaf_pin

LEAF, BACKUP, OTHER = (Pin(bytes([number]) * 32) for number in (1, 2, 5))
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dynpin_hosts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `dynpin hosts …` and gives its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")

    def command(*arguments: object) -> tuple[int, str, str]:
        code = run(lambda: app(["hosts", *map(str, arguments)]))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pins"
    with PinStore(path) as store:
        store.pin("bank.test", [LEAF, BACKUP], include_subdomains=True, expires_at=time.time() + 3 * 86_400 + 1_800)
        store.pin("shop.bank.test", [OTHER], report_uri="https://report.test/")
        store.note("noted.test", f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=8700', [LEAF])
        store.pin("old.test", [LEAF], expires_at=5.0)
    return path


def test_list_shows_life_cover_and_source(dynpin_hosts: Command, file: Path) -> None:
    code, out, _ = dynpin_hosts("list", "--store", file)
    lines = [line.split("  ") for line in out.splitlines()]
    cells = {line[0].strip(): [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert code == 0
    assert cells["bank.test"][:2] == ["with subdomains", "in 3 days"]
    assert cells["bank.test"][3:] == ["static", "2"]
    assert cells["shop.bank.test"][:2] == ["host alone", "never"]
    assert cells["noted.test"][1] in ("in 144 minutes", "in 143 minutes")  # a second may have passed
    assert "header" in cells["noted.test"]
    assert "old.test" not in cells
    assert "old.test" in dynpin_hosts("list", "--all", "--store", file)[1]


def test_a_list_for_another_program_has_a_line_for_each_host(dynpin_hosts: Command, tmp_path: Path) -> None:
    path, name = tmp_path / "pins", ".".join(["a-very-long-label-of-some-department"] * 4)
    with PinStore(path) as store:
        store.pin(name, [OTHER])
    _, out, _ = dynpin_hosts("list", "--store", path)
    assert [line.split()[0] for line in out.splitlines()] == ["host", name]


def test_list_as_json_is_what_import_reads(dynpin_hosts: Command, file: Path, tmp_path: Path) -> None:
    code, out, _ = dynpin_hosts("list", "--json", "--store", file)
    listed = json.loads(out)
    assert code == 0
    assert [entry["host"] for entry in listed] == ["bank.test", "noted.test", "shop.bank.test"]
    assert [entry["source"] for entry in listed] == ["static", "header", "static"]
    copy, other = tmp_path / "copy.json", tmp_path / "other"
    copy.write_text(out)
    assert dynpin_hosts("import", copy, "--store", other)[:2] == (0, "3 hosts imported\n")
    with PinStore(file) as store, PinStore(other) as imported:
        assert [entry.pins for entry in imported.hosts()] == [entry.pins for entry in store.hosts()]


@pytest.mark.parametrize("verb", [["show"], ["-F"]])
def test_show_says_which_entry_applies(dynpin_hosts: Command, file: Path, verb: list[str]) -> None:
    code, out, _ = dynpin_hosts(*verb, "a.b.bank.test", "--store", file)
    assert code == 0
    for text in ("nearest superdomain of a.b.bank.test", str(LEAF), str(BACKUP), "static"):
        assert text in out
    code, out, _ = dynpin_hosts("show", "shop.bank.test", "--json", "--store", file)
    shown = json.loads(out)
    assert (shown["host"], shown["pins"], shown["report_uri"]) == (
        "shop.bank.test",
        [str(OTHER)],
        "https://report.test/",
    )


def test_show_of_what_is_not_pinned_is_a_finding(dynpin_hosts: Command, file: Path) -> None:
    said = f"dynpin: nobody.test is not pinned in {file}; dynpin hosts list --store {file} shows the pinned hosts\n"
    assert dynpin_hosts("show", "nobody.test", "--store", file) == (1, "", said)
    assert dynpin_hosts("show", "old.test", "--store", file)[2].startswith(
        f"dynpin: old.test is not pinned in {file}: its pins expired at 1970-01-01T00:00:05Z; "
    )
    assert dynpin_hosts("show", "nobody.test", "--json", "--store", file) == (1, "null\n", "")


@pytest.mark.parametrize("verb", [["forget"], ["-R"]])
def test_forget_removes_and_names_what_still_covers_the_host(
    dynpin_hosts: Command, file: Path, verb: list[str]
) -> None:
    code, out, _ = dynpin_hosts(*verb, "shop.bank.test", "--store", file)
    assert code == 0
    assert "still pinned: bank.test covers its subdomains. To forget that one:" in out
    assert f"dynpin hosts forget bank.test --store {file}" in out
    code, _, err = dynpin_hosts(*verb, "shop.bank.test", "--store", file)
    assert (code, f"has no pins of its own in {file}: bank.test covers" in err) == (1, True)
    assert dynpin_hosts(*verb, "BANK.test.", "--store", file)[0] == 0
    with PinStore(file) as store:
        assert [entry.host for entry in store.hosts()] == ["noted.test"]


def test_the_command_that_the_error_names_is_the_way_out(dynpin_hosts: Command, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    path = tmp_path / "pins"
    with TLSServer(authority.issue_cert("bank.test")) as site, PinStore(path) as store:
        store.pin("test", [LEAF], include_subdomains=True)
        enforce(context, store)

        def connect() -> ssl.SSLSocket:
            return context.wrap_socket(socket.create_connection(("127.0.0.1", site.port)), server_hostname="bank.test")

        with pytest.raises(PinValidationError) as caught:
            connect()
        found = re.search(r"dynpin hosts (.*)", str(caught.value))
        assert found is not None
        assert dynpin_hosts(*found[1].split())[0] == 0
        connect().close()


def test_pin_takes_keys_files_and_certificates(dynpin_hosts: Command, tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("a.test")
    pem, path = tmp_path / "site.pem", tmp_path / "pins"
    pem.write_bytes(leaf.cert_chain_pems[0].bytes())
    code, out, err = dynpin_hosts("pin", "a.test", pem, f"sha256/{BACKUP}", "--include-subdomains", "--store", path)
    assert (code, err) == (0, "")
    assert str(leaf_pin(leaf)) in out
    code, _, err = dynpin_hosts(
        "pin", "b.test", BACKUP, "--expires", "2999-01-01", "--on-expiry", "refuse", "--store", path
    )
    assert (code, "no Backup Pin" in err) == (0, True)
    code, _, err = dynpin_hosts("pin", "c.test", "--certificate", ":".join(["AB"] * 32), "--store", path)
    assert (code, "renewal of the certificate breaks" in err) == (0, True)
    with PinStore(path) as store:
        a, b, c = store.hosts()
    assert (a.pins, a.include_subdomains, a.expires_at) == ((leaf_pin(leaf), BACKUP), True, None)
    assert (b.on_expiry, b.expires_at) == ("refuse", 32_472_144_000.0)
    assert c.certificates == (b"\xab" * 32,)


def test_pin_says_that_it_covers_less_than_before(dynpin_hosts: Command, file: Path) -> None:
    for host, options, narrows in (
        ("shop.bank.test", [], False),
        ("bank.test", ["--include-subdomains"], False),
        ("bank.test", [], True),
        ("bank.test", [], False),  # it covers no subdomain any more
    ):
        code, _, err = dynpin_hosts("pin", host, LEAF, BACKUP, *options, "--store", file)
        said = f"The subdomains of {host} are no longer covered: --include-subdomains covers them.\n"
        assert (code, err) == (0, said if narrows else "")
    # A damaged entry is replaced, whatever it covered.
    damage(file, "bank.test")
    assert dynpin_hosts("pin", "bank.test", LEAF, BACKUP, "--store", file)[0] == 0


@pytest.mark.parametrize("given", ["nofile.pem", str(LEAF)[:40]])
def test_what_is_neither_a_file_nor_a_pin(dynpin_hosts: Command, file: Path, given: str) -> None:
    said = f"dynpin: there is no file {given}, and it is not a pin in base64, of 44 characters\n"
    assert dynpin_hosts("pin", "bank.test", given, "--store", file) == (2, "", said)


@pytest.mark.parametrize("group", ["hosts", "reports"])
def test_options_stand_behind_the_verb(group: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app([group, "--store", str(file), "list"])) == 2
    assert "dynpin: write the options after the verb: dynpin " in capsys.readouterr().err


@pytest.mark.parametrize("form", ["wget2", "json", "csv", "toml"])
def test_export_and_import_go_round(dynpin_hosts: Command, file: Path, tmp_path: Path, form: str) -> None:
    written, other = tmp_path / f"written.{form}", tmp_path / "other"
    assert dynpin_hosts("export", "--format", form, "-o", written, "--store", file)[0] == 0
    assert dynpin_hosts("import", written, "--store", other) == (0, "3 hosts imported\n", "")
    code, out, _ = dynpin_hosts("list", "--json", "--store", other)
    assert code == 0
    listed = {entry["host"]: entry for entry in json.loads(out)}
    assert listed["bank.test"]["pins"] == [str(LEAF), str(BACKUP)]
    assert listed["bank.test"]["include_subdomains"] is True
    assert listed["bank.test"]["origin"] == f"written.{form}"


def test_export_of_one_host_and_of_one_that_is_not_there(dynpin_hosts: Command, file: Path) -> None:
    code, out, err = dynpin_hosts("export", "--format", "json", "bank.test", "nobody.test", "--store", file)
    assert (code, err) == (
        1,
        f"dynpin: {file} has no pins of nobody.test; dynpin hosts list shows the pinned hosts\n",
    )
    assert [entry["host"] for entry in json.loads(out)] == ["bank.test"]


def test_import_of_chromiums_list(dynpin_hosts: Command, tmp_path: Path) -> None:
    listed, keys, path = tmp_path / "static.json", tmp_path / "static.pins", tmp_path / "pins"
    listed.write_text(CHROMIUM)
    keys.write_text(CHROMIUM_KEYS)
    code, out, err = dynpin_hosts(
        "import", listed, "--keys", keys, "--expires", "2999-01-01", "--on-expiry", "release", "--store", path
    )
    assert (code, out) == (0, "3 hosts imported\n")
    assert "strict" in err
    with PinStore(path) as store:
        assert {entry.expires_at for entry in store.hosts()} == {32_472_144_000.0}
    assert dynpin_hosts("import", listed, "--store", path)[0] == 2


@pytest.mark.parametrize("content", ["{", '{"host": "bank.test"}'])
def test_an_object_that_is_not_chromiums_is_not_taken_for_it(
    dynpin_hosts: Command, tmp_path: Path, content: str
) -> None:
    given = tmp_path / "shown.json"
    given.write_text(content)
    code, _, err = dynpin_hosts("import", given, "--store", tmp_path / "pins")
    assert code == 2
    assert "JSON" in err
    assert "Chromium" not in err


def test_a_bad_file_changes_nothing(dynpin_hosts: Command, file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(f"host,pins\nnew.test,{OTHER}\nbank.test,nonsense\n")
    code, out, err = dynpin_hosts("import", bad, "--store", file)
    assert (code, out) == (2, "")
    assert "row 3" in err
    with PinStore(file) as store:
        assert store.known_host("new.test") is None


@pytest.mark.parametrize(
    ("content", "cause", "next_step"),
    [(None, "No such file or directory", "check the path"), (b"\xff\xfe\0", "not UTF-8 text", "Save it as UTF-8")],
)
def test_a_file_that_cannot_be_read_is_named_with_the_cause_and_the_next_step(
    dynpin_hosts: Command, file: Path, tmp_path: Path, content: bytes | None, cause: str, next_step: str
) -> None:
    path = tmp_path / "given.txt"
    if content is not None:
        path.write_bytes(content)
    code, out, err = dynpin_hosts("import", path, "--store", file)
    assert (code, out) == (2, "")
    assert err.startswith(f"dynpin: {path} cannot be read: ")
    assert cause in err
    assert next_step in err
    assert "Errno" not in err


def test_the_command_to_paste_is_quoted(dynpin_hosts: Command, tmp_path: Path) -> None:
    path = tmp_path / "my pins"
    with PinStore(path) as store:
        store.pin("bank.test", [LEAF, BACKUP], include_subdomains=True)
        store.pin("shop.bank.test", [OTHER])
    _, out, _ = dynpin_hosts("forget", "shop.bank.test", "--store", path)
    command = out.partition("forget that one:")[2]
    assert shlex.split(command) == ["dynpin", "hosts", "forget", "bank.test", "--store", str(path)]


def test_check_finds_and_repairs(dynpin_hosts: Command, file: Path) -> None:
    assert dynpin_hosts("check", "--store", file) == (0, f"{file} is sound.\n", "")
    os.truncate(file, file.stat().st_size - 4096)
    code, out, _ = dynpin_hosts("check", "--json", "--store", file)
    assert code == 1
    assert not json.loads(out)["ok"]
    assert dynpin_hosts("list", "--store", file)[0] == 2
    code, _, err = dynpin_hosts("check", "--repair", "--store", file)
    assert code == 0
    assert "hosts saved" in err
    assert "pins.damaged-" in err
    assert dynpin_hosts("show", "bank.test", "--store", file)[0] == 0


def damage(file: Path, *hosts: str) -> None:
    """Change a pin in the rows of hosts, behind the back of the store."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        for host in hosts:
            assert connection.execute("UPDATE hosts SET pins = zeroblob(32) WHERE host = ?", (host,)).rowcount == 1


def test_a_damaged_entry_is_named_repaired_and_forgotten(dynpin_hosts: Command, file: Path, tmp_path: Path) -> None:
    damage(file, "bank.test", "noted.test")
    copy = tmp_path / "copy"
    shutil.copy(file, copy)
    code, out, err = dynpin_hosts("check", "--store", file)
    assert (code, out) == (1, "")
    assert "the entry of 'bank.test' is damaged" in err
    assert "the entry of 'noted.test' is damaged" in err

    # The way out that the error names, for one entry alone.
    code, _, err = dynpin_hosts("show", "www.bank.test", "--store", file)
    assert code == 2
    assert f"dynpin hosts forget bank.test --store {file}" in err
    code, out, err = dynpin_hosts("forget", "shop.bank.test", "--store", file)
    assert (code, out) == (1, "shop.bank.test: the entry forgotten\n")
    assert "the entry of 'bank.test' is damaged" in err
    said = "bank.test: the entry forgotten\nnoted.test: the entry forgotten\n"
    assert dynpin_hosts("forget", "bank.test", "noted.test", "--store", file) == (0, said, "")
    assert dynpin_hosts("check", "--store", file)[0] == 0

    # And for all at once.
    code, out, err = dynpin_hosts("check", "--repair", "--store", copy)
    assert (code, out) == (0, f"{copy} is sound.\n")
    assert err.startswith(f"2 hosts saved; the damaged file is {copy}.damaged-")
    assert "shop.bank.test" in dynpin_hosts("list", "--store", copy)[1]


def test_what_a_full_store_did_not_note_is_shown(dynpin_hosts: Command, tmp_path: Path) -> None:
    path, header = tmp_path / "pins", f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=8700'
    with PinStore(path, max_hosts_per_domain=1) as store:
        assert store.note("a.corp.test", header, [LEAF]).outcome == "noted"
        assert store.note("b.corp.test", header, [LEAF]).outcome == "ignored"
    told = "b.corp.test was not noted: the store notes at most 1 host below corp.test"
    code, out, err = dynpin_hosts("list", "--store", path)
    assert (code, told in err, told in out) == (0, True, False)
    assert err.endswith("seconds ago)\n")
    code, out, err = dynpin_hosts("list", "--json", "--store", path)
    assert [entry["host"] for entry in json.loads(out)] == ["a.corp.test"]
    assert told in err
    code, out, err = dynpin_hosts("check", "--store", path)
    assert (code, out.startswith(f"{path} is sound.\n{told}"), err) == (0, True, "")
    (refusal,) = json.loads(dynpin_hosts("check", "--json", "--store", path)[1])["refusals"]
    assert (refusal["scope"], refusal["host"], refusal["bound"]) == ("corp.test", "b.corp.test", 1)
    assert datetime.fromisoformat(refusal["refused_at"]) <= datetime.now(UTC)


def test_check_does_not_take_a_clock_that_has_jumped_for_right(dynpin_hosts: Command, tmp_path: Path) -> None:
    path = tmp_path / "pins"
    with PinStore(path, clock=lambda: time.time() - 40 * 86_400) as store:
        store.note("a.test", f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=8700', [LEAF])
    for _ in range(2):
        code, _, err = dynpin_hosts("check", "--store", path)
        assert (code, "the clock reads" in err) == (1, True)
    assert dynpin_hosts("check", "--accept-clock", "--store", path)[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--store", "{folder}/nowhere"],
        ["show", "a..b"],
        ["-F", "a.test", "-R", "b.test"],
        ["--store", "{folder}/x"],
        ["-F", "a.test", "list"],
        ["pin", "a.test", "--store", "{folder}/x"],
        ["pin", "127.0.0.1", str(LEAF), "--store", "{folder}/x"],
        ["pin", "a.test", "nonsense", "--store", "{folder}/x"],
        ["pin", "a.test", str(LEAF), "--expires", "2999-01-01", "--store", "{folder}/x"],
        ["import", "{folder}/nowhere", "--store", "{folder}/x"],
        ["export", "--format", "wget3"],
        ["export", "--format", "wget2", "--store", "{folder}/nowhere"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(dynpin_hosts: Command, tmp_path: Path, arguments: list[str]) -> None:
    code, _, err = dynpin_hosts(*(argument.format(folder=tmp_path) for argument in arguments))
    assert code == 2
    assert err or arguments[0] == "--store"
    assert not (tmp_path / "nowhere").exists()
