"""Bad input at the command line: exit code 2, the thing named, no words of a library, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.commands import dynpin
from tests.deploy.servers import make_site
from tests.deploy.test_check import NEW, OLD

# What is typed, with {folder} for the folder of the files below; and what the message must say.
BAD: dict[str, tuple[str, list[str]]] = {
    "a file of header lines": ("lint {folder}/text", ["text is a file", "dynpin lint - <"]),
    "a HAR that is none": ("lint {folder}/no.har", ["no.har: this is not an HTTP Archive"]),
    "an absent HAR": ("lint {folder}/absent.har", ["absent.har: No such file"]),
    "circumstances of bytes": ("lint x --context {folder}/bytes", ["bytes has no circumstances"]),
    "an empty inventory": (
        "lint --inventory {folder}/empty",
        ["empty: hosts is missing", 'hosts = ["www.example.com"]'],
    ),
    "an inventory that is a folder": ("export nginx --inventory {folder}", ["cannot be read (Is a directory)"]),
    "an unknown host": ("check https://nowhere.invalid/", ["nowhere.invalid has no known address", "--address"]),
    "a port out of range": (
        "check https://localhost:99999/",
        ["https://localhost:99999/ is not a URL", "not a number from 1 to 65535"],
    ),
    "roots that are none": ("check localhost:1 --ca {folder}/text", ["text holds no roots that can be read", "PEM"]),
    "absent roots": ("check localhost:1 --ca {folder}/absent", ["absent: No such file", "PEM"]),
    "nobody who listens": ("check localhost:1", ["localhost does not answer", "refused. Check that the server runs"]),
    "nobody who listens to get": ("get https://localhost:1/", ["port 1 gave no answer: Connection refused; check"]),
    "two documents of lint": ("lint {header} --json --sarif", ["give --json or --sarif"]),
    "two documents of a scan": ("lint --scan {folder}/text --json --csv", ["give --json or --csv"]),
    "two documents of check": ("check localhost:1 --json --sarif", ["give --json or --sarif"]),
    "a name without an address": ("get https://nowhere.invalid/", ["nowhere.invalid port 443 gave no answer", "DNS"]),
    "roots of get that are none": ("get https://localhost:1/ --ca {folder}/text", ["text holds no roots", "PEM"]),
    "no reports there": ("reports list --store {folder}/absent", ["no pin store at", "check the path"]),
    "no store there": ("hosts recover --store {folder}/absent", ["no pin store at", "check the path"]),
    "a file that cannot be pinned": ("pin {folder}/absent", ["absent: No such file or directory; check the path"]),
    "a history before the network": ("check nowhere.invalid --history {folder}/absent", ["absent does not exist"]),
    "a day before the network": ("check nowhere.invalid --now today", ["today is not a time: write 2026-12-24"]),
    "a day before all days": (
        "check nowhere.invalid --now 0001-01-01T00:00:00+10:00",
        ["0001-01-01T00:00:00+10:00 is out of range", "from 1970 to 8999"],
    ),
    "a day after which nothing expires": ("check nowhere.invalid --now 9999-12-31", ["9999-12-31 is out of range"]),
    "a day in the year 10000": ("check nowhere.invalid --now 9999-12-31T23:59:59-12:00", ["is out of range"]),
    "an absent passphrase": ("keys new a.example --passphrase-file {folder}/absent", ["absent: No such file"]),
    "no passphrase": ("keys new a.example", ["no terminal to ask for the passphrase", "--passphrase-file"]),
    "keys into a file": (
        "keys new a.example --out {folder}/text --passphrase-file {folder}/passphrase",
        ["text is a file or a broken link; a folder is needed here"],
    ),
    "a chain of text": ("guard {folder}/text --header {header}", ["text: neither PEM nor DER"]),
    "a chain without a certificate": (
        "guard {folder}/key.pem --header {header}",
        ["key.pem: it has a key", "leaf"],
    ),
    "a header of nothing": (
        "guard {folder}/chain.pem --header nonsense",
        ["--header 'nonsense'", "max-age is required", "dynpin lint"],
    ),
    "no history": (
        "guard {folder}/chain.pem --history {folder}/absent",
        ["absent does not exist", "dynpin rotate record"],
    ),
    "another JSON": (
        "rotate status --history {folder}/other.json",
        ["other.json: this is not a rotation history", "version"],
    ),
    "a history of bytes": ("rotate next --history {folder}/bytes", ["bytes: this is not a rotation history"]),
    "a host that is none": (
        "rotate record --host a..b --no-header --history {folder}/new",
        ["'a..b' is not a host name"],
    ),
    "a history in no folder": (
        "rotate record --host a.example --no-header --history {folder}/absent/new",
        ["absent/new cannot be written, and nothing is recorded"],
    ),
    "no ramp": ("ramp status --inventory {folder}/absent", ["absent cannot be read (No such file"]),
    "no inventory here": ("ramp status", ["there is no dynpin.toml in this folder", "--inventory"]),
}


@pytest.mark.parametrize(("typed", "words"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(typed: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "files"
    make_site(folder)
    (folder / "no.har").write_text("x")
    (folder / "text").write_text("text\n")
    (folder / "passphrase").write_text("a passphrase that is long\n")
    (folder / "bytes").write_bytes(bytes(range(128, 256)))
    (folder / "empty").write_text("")
    (folder / "other.json").write_text('{"a": 1}')
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    header = f'pin-sha256="{OLD}";pin-sha256="{NEW}";max-age=60'
    result = dynpin(*(word.format(folder=folder, header=header) for word in typed.split()))
    said = result.stderr
    assert result.exit_code == 2, result.output
    assert not [word for word in words if word not in said], said
    assert not [odd for odd in ("Traceback", "Errno", "ParseError", "KeyError") if odd in said], said
    assert list(here.iterdir()) == []
