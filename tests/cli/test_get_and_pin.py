"""`dynpin get` and `dynpin pin` as a person runs them: output, exit codes, no traceback."""

from __future__ import annotations

import base64
import json
import os
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.cli.app import app
from dynpin.cli.errors import run as run_in_words
from dynpin.clientstore import PinStore
from dynpin.lab.network import TLSServer, loopback_names

from ..clientstore.sites import Proxy
from .processes import called, dynpin
from .test_strangers import ANSWERS, answering

HOST = "localhost"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_dynpin(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = called(*arguments, folder=tmp_path)
        stdout, stderr = (stream.decode().replace("\r\n", "\n") for stream in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, stdout, stderr)

    return run_dynpin


@pytest.fixture
def authorities() -> tuple[trustme.CA, trustme.CA]:
    return trustme.CA(), trustme.CA()


@pytest.fixture
def roots(authorities: tuple[trustme.CA, trustme.CA], tmp_path: Path) -> Path:
    file = tmp_path / "roots.pem"
    file.write_bytes(b"".join(authority.cert_pem.bytes() for authority in authorities))
    return file


def pin_of(certificate: trustme.LeafCert) -> Pin:
    return Pin.from_certificate(certificate.cert_chain_pems[0].bytes())


@pytest.fixture
def site(authorities: tuple[trustme.CA, trustme.CA]) -> Iterator[TLSServer]:
    deployed, backup = (authorities[0].issue_cert(HOST) for _ in range(2))
    header = PublicKeyPins((pin_of(deployed), pin_of(backup)), max_age=3600)
    with TLSServer(deployed, headers=[("Public-Key-Pins", str(header)), ("Public-Key-Pins", "nonsense")]) as server:
        yield server


def test_get_notes_then_enforces_and_tells_the_way_out(
    run: Run, site: TLSServer, authorities: tuple[trustme.CA, trustme.CA], roots: Path, tmp_path: Path
) -> None:
    options = ("--store", tmp_path / "pins", "--ca", roots)
    first = run("get", site.url(HOST), *options)
    assert first.returncode == 0
    assert "noted" in first.stdout

    second = json.loads(run("get", site.url(HOST), *options, "--json").stdout)
    assert (second["ok"], second["outcome"], second["known_host"]["host"]) == (True, "updated", HOST)
    assert set(second["known_host"]["pins"]) & set(second["chain"])

    site.show(authorities[1].issue_cert(HOST))
    before = site.application_bytes
    refused = run("get", site.url(HOST), *options)
    assert refused.returncode == 1
    assert refused.stdout == ""
    command = f"dynpin hosts forget {HOST} --store {tmp_path / 'pins'}"
    assert command in refused.stderr
    as_json = run("get", site.url(HOST), *options, "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["outcome"] == "refused"
    site.wait_idle()
    assert site.application_bytes == before

    # A reader who does what the message says is let in again.
    assert run(*command.split()[1:]).returncode == 0
    assert run("get", site.url(HOST), *options).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "http://localhost/"), "not an https URL"),
        (("get", "nonsense"), "not an https URL"),
        (("get", "https://localhost:1/"), "localhost port 1 gave no answer: "),
        (("get", "https://localhost:99999/"), "https://localhost:99999/ is not a URL: its port is not a number"),
        (("get", "https://[localhost/"), "https://[localhost/ is not a URL"),
        (("get", "https://ba nk.test/"), "contains a space or a line break"),
        (("get", "https://bank..test/"), "'bank..test' is not a host name: it has a dot too many"),
        (("get", "https://bank.test@localhost/"), "has a user name before its host"),
        (("get", "https://localhost/", "--timeout", "nan"), "--timeout"),
        (("get", "https://localhost/", "--ca", "missing.pem"), "missing.pem"),
        (("pin", "missing.pem"), "missing.pem: No such file"),
        (("pin",), "Missing argument"),
        (("nonsense",), "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_told_without_a_traceback(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    store = ("--store", tmp_path / "pins") if arguments[0] == "get" else ()
    done = run(*arguments, *store)
    assert done.returncode == 2
    assert message in done.stderr
    assert "[Errno" not in done.stderr


def test_a_certificate_that_is_not_valid_is_told_from_a_wrong_key(
    run: Run, site: TLSServer, authorities: tuple[trustme.CA, trustme.CA], roots: Path, tmp_path: Path
) -> None:
    store = ("--store", tmp_path / "pins")
    unknown = run("get", site.url(HOST), *store)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "shows a certificate that is not valid: unable to get local issuer certificate" in unknown.stderr
    assert "with --ca FILE" in unknown.stderr
    site.show(authorities[0].issue_cert("other.test"))
    other = run("get", site.url(HOST), *store, "--ca", roots)
    assert other.returncode == 2
    assert "shows a certificate that is not valid: Hostname mismatch" in other.stderr
    assert "--ca" not in other.stderr


def test_an_audit_lets_through_what_would_be_refused_and_notes_nothing(
    run: Run, site: TLSServer, authorities: tuple[trustme.CA, trustme.CA], roots: Path, tmp_path: Path
) -> None:
    options = ("--store", tmp_path / "pins", "--ca", roots, "--audit", "--body")
    passed = run("get", site.url(HOST), *options)
    new = f"dynpin: a new pin store: {tmp_path / 'pins'}\n"
    assert (passed.returncode, "noted" in passed.stdout, passed.stderr) == (0, True, new)
    with PinStore(tmp_path / "pins") as store:
        known = store.known_host(HOST)

    attacker, backup = (authorities[1].issue_cert(HOST) for _ in range(2))
    site.show(attacker)
    site.headers = [("Public-Key-Pins", str(PublicKeyPins((pin_of(attacker), pin_of(backup)), max_age=3600)))]
    audited = run("get", site.url(HOST), *options)
    assert audited.returncode == 1
    assert audited.stdout.startswith("localhost answered 200 OK\n  ignored  localhost shows none of its pinned keys")
    assert f"shown    {pin_of(attacker)}" in audited.stdout
    assert audited.stdout.endswith("hello")
    assert "The request was sent: without --audit the connection is refused" in audited.stderr
    assert "No request was sent" not in audited.stderr
    assert "a new pin store" not in audited.stderr
    as_json = run("get", site.url(HOST), *options[:5], "--json")
    told = json.loads(as_json.stdout)
    assert (as_json.returncode, told["ok"], told["status"], told["outcome"]) == (1, False, "200 OK", "ignored")
    assert told["known_host"]["pins"] == [str(pin) for pin in known.pins] if known else []
    with PinStore(tmp_path / "pins") as store:
        assert store.known_host(HOST) == known


@pytest.mark.parametrize("bypassed", [False, True], ids=["HTTPS_PROXY", "NO_PROXY"])
def test_the_proxy_of_the_environment_is_used(
    run: Run, site: TLSServer, roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bypassed: bool
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "localhost" if bypassed else "")
        done = run("get", site.url(HOST), "--store", tmp_path / "pins", "--ca", roots)
        assert (done.returncode, "noted" in done.stdout) == (0, True)
        assert proxy.tunnels == ([] if bypassed else [f"localhost:{site.port}"])
    with PinStore(tmp_path / "pins") as store:
        assert [entry.host for entry in store.hosts()] == [HOST]


def test_a_proxy_that_refuses_is_named_and_hears_the_password_of_the_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class Refusing(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            heard.extend(line.decode().strip() for line in iter(self.rfile.readline, b"\r\n"))
            self.wfile.write(b"HTTP/1.1 407 \x1b[31mno\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        port = server.server_address[1]
        monkeypatch.setenv("HTTPS_PROXY", f"u%40a:p%3Aw@127.0.0.1:{port}")
        done = run("get", "https://bank.test/", "--store", tmp_path / "pins")
        server.shutdown()
        thread.join()
    assert done.returncode == 2
    assert f"bank.test port 443 gave no answer through the proxy 127.0.0.1 port {port}: " in done.stderr
    assert "407" in done.stderr
    assert "\x1b" not in done.stderr
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'u@a:p:w').decode()}" in heard


@pytest.mark.parametrize(
    ("variable", "proxy", "said"),
    [
        ("HTTPS_PROXY", "socks5://127.0.0.1:1080", "http://HOST:PORT, and HTTPS_PROXY begins with socks5://"),
        ("HTTPS_PROXY", "http://my proxy:3128", "HTTPS_PROXY is not the URL of a proxy: write http://HOST:PORT"),
        ("ALL_PROXY", "http://proxy.test:port", "ALL_PROXY is not the URL of a proxy: write http://HOST:PORT"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_by_its_variable(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    proxy: str,
    said: str,
) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, proxy)
    assert run_in_words(lambda: app(["get", "https://bank.test/", "--store", str(tmp_path / "pins")])) == 2
    assert said in capsys.readouterr().err


def test_the_name_that_is_noted_is_the_one_that_tls_verified(
    authorities: tuple[trustme.CA, trustme.CA], roots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's ssl writes straße.test as strasse.test, which is another host."""
    certificates = [authorities[0].issue_cert(name) for name in ("strasse.test", "xn--strae-oqa.test")]
    header = str(PublicKeyPins(tuple(map(pin_of, certificates)), max_age=3600))
    path = tmp_path / "pins"

    def visit(server: TLSServer) -> int:
        arguments = [server.url("straße.test"), "--store", str(path), "--ca", str(roots)]
        return run_in_words(lambda: app(["get", *arguments]))

    with TLSServer(certificates[0], headers=[("Public-Key-Pins", header)]) as server, loopback_names():
        assert visit(server) == 2
        assert "Hostname mismatch" in capsys.readouterr().err
        assert server.received == b""
        with PinStore(path) as store:
            assert store.hosts() == []
        server.show(certificates[1])
        assert visit(server) == 0
        with PinStore(path) as store:
            assert [entry.host for entry in store.hosts()] == ["xn--strae-oqa.test"]


@pytest.mark.parametrize("place", ANSWERS)
def test_what_a_hostile_site_says_is_shown_without_being_obeyed(place: str, run: Run, tmp_path: Path) -> None:
    hostile = "\x1b[31mred\x1b]0;owned\x07\x9b1m\r\u202e\x08\x7f\x00\x85"
    with answering(ANSWERS[place].replace("{}", hostile).encode(), tmp_path) as (url, roots):
        for more in ((), ("--json",)):
            done = run("get", url, "--ca", roots, "--store", tmp_path / "pins", *more)
            assert done.returncode in (0, 2)
            for stream in (done.stdout, done.stderr):
                assert stream.replace("\n", "").isprintable()
            assert not more or done.returncode == 2 or json.loads(done.stdout)


def test_a_body_is_marked_on_a_terminal_and_whole_in_a_pipe(
    run: Run, site: TLSServer, roots: Path, tmp_path: Path
) -> None:
    options = ("get", site.url(HOST), "--body", "--store", tmp_path / "pins", "--ca", roots)
    site.body = b"\x1b[31mred\r\nend"
    assert run(*options).stdout.endswith("\x1b[31mred\nend")  # the fixture turns CRLF into LF
    near, far = os.openpty()
    with os.fdopen(near, "rb", buffering=0) as terminal, os.fdopen(far, "wb", buffering=0):
        assert dynpin(*options, stdout=far).returncode == 0
        assert "\N{REPLACEMENT CHARACTER}[31mred\r\nend" in terminal.read(65_536).decode()


def test_pin_prints_the_pins_of_files(run: Run, authorities: tuple[trustme.CA, trustme.CA], roots: Path) -> None:
    expected = str(Pin.from_certificate(authorities[0].cert_pem.bytes()))
    assert run("pin", roots).stdout == f"{expected}\n"
    assert json.loads(run("pin", roots, "--json").stdout) == [{"file": str(roots), "pin": expected}]
    both = run("pin", roots, "missing.pem", roots)
    assert both.returncode == 2
    assert both.stdout.splitlines() == [f"{expected}  {roots}"] * 2


def test_version() -> None:
    from dynpin import __version__

    assert dynpin("--version").stdout.decode() == f"dynpin {__version__}\n"
