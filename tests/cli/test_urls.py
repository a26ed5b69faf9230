"""URLs and names that a person typed: taken as every program takes them, or refused in plain words."""

from __future__ import annotations

import pytest
import typer

from dynpin.cli.urls import HttpsURL, host_name, https_url, request_target

from .processes import called

TAKEN = {
    "https://bank.test": HttpsURL("bank.test", 443, "/"),
    "https://Bank.TEST.:8443/a/b?c=d#e": HttpsURL("bank.test", 8443, "/a/b?c=d"),
    "https://bank.test:/": HttpsURL("bank.test", 443, "/"),
    "https://bank.test?x=1": HttpsURL("bank.test", 443, "/?x=1"),
    "HTTPS://bank.test/": HttpsURL("bank.test", 443, "/"),
    "https://straße.test/ä%20b?q=ü": HttpsURL("xn--strae-oqa.test", 443, "/%C3%A4%20b?q=%C3%BC"),
    "https://ΒΌΛΟΣ/Σ": HttpsURL("xn--nxasmq6b", 443, "/%CE%A3"),
    "https://[::1]:8443/": HttpsURL("::1", 8443, "/"),
    "https://127.0.0.1/": HttpsURL("127.0.0.1", 443, "/"),
}
REFUSED = {
    "https://ba nk.test/": "'https://ba nk.test/' contains a space or a line break",
    "https://bank.test/a b": "write %20 for a space",
    "https://bank.test/\r\nHost: evil.test": "a space or a line break",
    "https://bank.test/\x1b[31m": "'https://bank.test/\\x1b[31m' contains an invisible character, U+001B",
    "https://bank.test/\u202e": "invisible character, U+202E",
    "https://bank.test/\x00": "invisible character, U+0000",
    "https://bank..test/": "'bank..test' is not a host name: it has a dot too many",
    "https://.bank.test/": "'.bank.test' is not a host name: it has a dot too many",
    "https://ba|nk.test/": "'ba|nk.test' is not a host name",
    f"https://{'a' * 64}.test/": "is not a host name",
    "https://bank.test:0/": "its port is not a number from 1 to 65535",
    "https://bank.test:65536/": "its port is not a number from 1 to 65535",
    "https://bank.test:https/": "its port is not a number from 1 to 65535",
    "https://bank.test:-1/": "its port is not a number from 1 to 65535",
    "https://user:secret@bank.test/": "has a user name before its host",
    "https://bank.test\\@evil.test/": "has a user name before its host",
    "https://[::1/": "https://[::1/ is not a URL: ",
    "https:///path": "is not an https URL with a host",
    "http://bank.test/": "is not an https URL with a host: write https://HOST/, since pins belong to TLS connections",
    "bank.test": "is not an https URL with a host",
    "": "is not an https URL with a host",
}


@pytest.mark.parametrize("text", TAKEN)
def test_a_url_is_taken_apart(text: str) -> None:
    assert https_url(text) == TAKEN[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_https_url_is_refused_in_plain_words(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        https_url(text)
    said = capsys.readouterr().err
    assert ended.value.exit_code == 2
    assert REFUSED[text] in said
    assert said.startswith("dynpin: ")
    assert said.rstrip("\n").isprintable()
    assert "codec" not in said


def test_names_and_paths_by_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert host_name("Bank.test.") == "bank.test"
    assert host_name("::1") == "::1"
    assert request_target("/ü?a=%41") == "/%C3%BC?a=%41"
    for refused, words in (
        (host_name, "'' is not a host name"),
        (request_target, " is not a path of a site: it begins with /"),
    ):
        with pytest.raises(typer.Exit):
            refused("")
        assert words in capsys.readouterr().err


# Every option of a command that takes a URL, a name or a path; {} stands for what was typed.
OPTIONS = {
    "check": ["check", "{}"],
    "check --address": ["check", "https://localhost:1/", "--address", "{}"],
    "check --subdomain": ["check", "https://localhost:1/", "--subdomain", "{}"],
    "check --path": ["check", "https://localhost:1/", "--path", "{}"],
    "export --host": ["export", "android", "--host", "{}", "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="],
    "export --report-uri": ["export", "nginx", "--report-uri", "{}", "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="],
    "keys new": ["keys", "new", "{}", "--passphrase-file", "-"],
    "rotate record --host": ["rotate", "record", "--host", "{}", "--no-header"],
    "collect tokens add --host": ["collect", "tokens", "add", "--host", "{}"],
    "hosts show": ["hosts", "show", "{}"],
    "hosts forget": ["hosts", "forget", "{}"],
    "hosts pin": ["hosts", "pin", "{}", "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="],
}


@pytest.mark.parametrize("typed", ["ba nk.test", "bank..test", "bank\x1b[31m.test"])
@pytest.mark.parametrize("option", OPTIONS)
def test_a_bad_name_is_wrong_usage_everywhere(
    option: str, typed: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("here")
    arguments = [word.format(typed) for word in OPTIONS[option]]
    done = called(*arguments, stdin=b"secret\n", folder=folder, environment={"XDG_DATA_HOME": str(folder / "data")})
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b""), said
    assert said.startswith("dynpin: ")
    assert "\x1b" not in said
    assert "codec" not in said
    assert not (folder / "dynpin-history.json").exists()


def test_a_url_is_no_header() -> None:
    done = called("lint", "https://bank.test/")
    assert done.returncode == 2
    assert b"dynpin check https://bank.test/" in done.stderr
