"""The proxy for its users: `dynpin lab proxy`, with curl and Chromium behind it."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from dynpin import PublicKeyPins
from dynpin.lab.network import TLSServer
from tests.chromium import needs_chromium
from tests.clientstore.inbox import Inbox
from tests.clientstore.world import HOST
from tests.environments import ROOT

from .pinned_place import PAGE, Place
from .proxies import RunningProxy, browser, command, curl, tunnel

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl")


@pytest.fixture
def proxy(place: Place, proxy_bin: Path) -> Generator[RunningProxy]:
    with RunningProxy(place.arguments(proxy_bin), place.folder / "authority") as running:
        yield running


@needs_curl
def test_curl_is_noted_passed_refused_and_let_through_again(place: Place, proxy: RunningProxy, proxy_bin: Path) -> None:
    url = place.site.url(HOST)
    first = curl(proxy, url)
    assert (first.status, first.body) == (200, PAGE.decode())
    with place.store() as store:
        entry = store.entry(HOST)
    assert entry is not None
    assert entry.pins == place.pins
    assert proxy.wait_for(r"noted: bank\.test is pinned to 2 keys")
    assert curl(proxy, url).status == 200

    place.attack()
    refused = curl(proxy, url)
    assert (refused.status, refused.headers["content-type"]) == (502, "text/plain; charset=utf-8")
    forget = f"dynpin hosts forget {HOST} --store {place.folder / 'pins'}"
    assert refused.body.startswith("bank.test shows none of its pinned keys.\n  shown   ")
    assert refused.body.endswith(f"If you know that the new key is right:  {forget}\n")
    assert proxy.wait_for("Pin Validation failed: bank.test shows none of its pinned keys")
    place.site.wait_idle()
    assert place.site.application_bytes == 0

    # Another process, perhaps with another version of Python, shares the store.
    fixed = subprocess.run([proxy_bin / "python", "-m", *forget.split()], check=False, cwd=ROOT, capture_output=True)
    assert fixed.returncode == 0, fixed.stderr
    assert curl(proxy, url).status == 200


@needs_curl
def test_the_texts_of_the_page_are_escaped_and_only_its_style_is_allowed(place: Place, proxy: RunningProxy) -> None:
    with place.store() as store:
        store.pin(HOST, place.pins)
    place.attack("</code><script>alert(1)</script>")
    refused = curl(proxy, place.site.url(HOST), "--header", "Accept: text/html,*/*;q=0.8")
    assert (refused.status, refused.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert "<script" not in refused.body
    assert html.escape("<script>alert(1)</script>") in refused.body
    for pin in place.pins:
        assert f"<code>{pin}</code>" in refused.body
    style = re.search("<style>(.*)</style>", refused.body, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = refused.headers["content-security-policy"].split("; ")
    assert policy[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert not re.search(r"(?:src|href|action)=", refused.body)
    assert refused.headers["cache-control"] == "no-store"


@needs_chromium
def test_chromium_shows_the_pinned_page_and_in_place_of_the_attacked_one_the_explanation(
    place: Place, proxy: RunningProxy
) -> None:
    url = place.site.url(HOST)
    with browser(proxy, place.folder / "profile") as tab:
        tab.visit(url)
        assert tab.text() == "balance"
        with place.store() as store:
            assert store.known_host(HOST) is not None
        tab.visit(url)
        assert tab.text() == "balance"

    # A new browser: the old one keeps spare connections, which the proxy ends a moment after their upstream ends.
    place.attack()
    with browser(proxy, place.folder / "another profile") as tab:
        tab.visit(url)
        shown = tab.text()
        assert "bank.test shows none of its pinned keys.\n" in shown
        assert f"\ndynpin hosts forget bank.test --store {place.folder / 'pins'}\n" in shown
        # The style applies, and the page's own policy blocks nothing that it needs.
        assert tab.run("getComputedStyle(document.querySelector('h1')).color") == "rgb(168, 24, 31)"
        assert not [entry for entry in tab.complaints() if "Content Security Policy" in entry]
        place.site.wait_idle()
        assert place.site.application_bytes == 0

        with place.store() as store:
            assert store.forget(HOST)
        tab.visit(url)
        assert tab.text() == "balance"


@needs_curl
def test_the_report_of_a_violation_arrives(place: Place, proxy: RunningProxy) -> None:
    with Inbox() as inbox:
        place.say(report_uri=f"http://127.0.0.1:{inbox.port}/hpkp")
        curl(proxy, place.site.url(HOST))
        place.attack()
        curl(proxy, place.site.url(HOST))
        report = inbox.next_report()
    assert (report["hostname"], report["port"]) == (HOST, place.site.port)
    assert report["known-pins"] == [f'pin-sha256="{pin}"' for pin in place.pins]
    served, validated = report["served-certificate-chain"], report["validated-certificate-chain"]
    assert isinstance(served, list)
    assert isinstance(validated, list)
    # The verified chain ends with the root, which the server does not send.
    assert validated[: len(served)] == served
    assert len(validated) == len(served) + 1


@needs_curl
def test_the_header_stays_with_the_proxy_and_a_report_only_policy_is_reported(
    place: Place, proxy: RunningProxy
) -> None:
    with Inbox() as inbox:
        other = PublicKeyPins((place.pins[1],), None, report_uri=f"http://127.0.0.1:{inbox.port}/r", report_only=True)
        place.site.headers.append(("Public-Key-Pins-Report-Only", str(other)))
        answer = curl(proxy, place.site.url(HOST))
        report = inbox.next_report()
    assert answer.status == 200
    assert not {name for name in answer.headers if name.startswith("public-key-pins")}
    assert (report["hostname"], report["port"], report["known-pins"]) == (
        HOST,
        place.site.port,
        [f'pin-sha256="{place.pins[1]}"'],
    )


@needs_curl
def test_the_browsers_rule_bypasses_pins_for_private_roots(place: Place, proxy_bin: Path) -> None:
    with place.store() as store:
        store.pin(HOST, place.pins)
    place.attack()
    arguments = place.arguments(proxy_bin, "--private-roots", "bypass")
    with RunningProxy(arguments, place.folder / "authority") as running:
        assert curl(running, place.site.url(HOST)).status == 200


class _Talker(TLSServer):
    def _response(self, request: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe beginning"


def test_a_body_is_forwarded_piece_by_piece(place: Place, proxy_bin: Path) -> None:
    with _Talker(place.certificate) as site:
        arguments = place.arguments(proxy_bin, "--resolve", f"{HOST}:{site.port}:127.0.0.1")
        with (
            RunningProxy(arguments, place.folder / "authority") as running,
            tunnel(running, (HOST, site.port)) as client,
        ):
            client.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            received = b""
            # The site sends no more, but does not end the connection.
            while not received.endswith(b"the beginning"):
                piece = client.recv(65_536)
                assert piece, received
                received += piece


@contextmanager
def websocket_site(certificate: trustme.LeafCert, header: str) -> Generator[tuple[int, list[str | bytes]]]:
    """A site that answers an upgrade with a header of pins, and echoes messages in capitals: its port and messages."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    heard: list[str | bytes] = []

    def upgraded(_: ServerConnection, __: Request, response: Response) -> Response:
        response.headers["Public-Key-Pins"] = header
        return response

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            heard.append(message)
            connection.send(message.upper())

    with serve(answer, "127.0.0.1", 0, ssl=context, process_response=upgraded) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1], heard
        finally:
            server.shutdown()
            thread.join()


def test_a_websocket_is_noted_passed_and_refused(place: Place, proxy_bin: Path) -> None:
    header = str(PublicKeyPins(place.pins, max_age=3600))
    rogue = place.rogue.issue_cert(HOST)
    with (
        websocket_site(place.certificate, header) as (honest, _),
        websocket_site(rogue, header) as (hostile, heard),
    ):
        leads = [option for port in (honest, hostile) for option in ("--resolve", f"{HOST}:{port}:127.0.0.1")]
        arguments = command(proxy_bin, place.folder, *leads)
        with RunningProxy(arguments, place.folder / "authority") as proxy:
            context = ssl.create_default_context(cafile=proxy.authority)

            def visit(port: int) -> str | bytes:
                url = f"wss://{HOST}:{port}/"
                with connect(url, ssl=context, proxy=proxy.url, open_timeout=120, close_timeout=120) as connection:
                    connection.send("the balance")
                    answer = connection.recv(timeout=120)
                assert connection.close_exc.__cause__ is None, "the proxy ends it, not the client's patience"
                return answer

            assert visit(honest) == "THE BALANCE"
            with place.store() as store:
                assert store.known_host(HOST) is not None
            assert visit(honest) == "THE BALANCE"
            with pytest.raises(InvalidStatus, match="502"):
                visit(hostile)
    assert heard == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_how_to_use_it_and_stops_at_a_signal(place: Place, proxy: RunningProxy, number: signal.Signals) -> None:
    proxy.wait_for("^refused")
    assert proxy.stop(number) == 0
    said = "".join(proxy.printed)
    assert f"curl --proxy {proxy.url} --cacert {proxy.authority} URL" in said
    assert f"--proxy-server={proxy.url}" in said
    assert f"{place.folder / 'pins'}   (0 hosts)" in said
    assert said.endswith("stopped\n")
    assert "Traceback" not in said


def refused(arguments: list[str]) -> str:
    """The output of a proxy that does not start: one line, with exit code 2."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_reason_for_a_failed_start_is_named(place: Place, proxy_bin: Path, tmp_path: Path) -> None:
    arguments = place.arguments(proxy_bin)
    junk = tmp_path / "junk"
    junk.write_text("no certificate")

    def instead(option: str, value: str) -> str:
        changed = list(arguments)
        changed[changed.index(option) + 1] = value
        return refused(changed)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = instead("--listen", f"127.0.0.1:{port}")
        assert f"the proxy cannot listen on 127.0.0.1:{port}" in said
        assert "in use" in said
    assert f"{junk} holds no roots that can be read" in instead("--upstream-ca", str(junk))
    assert "is not of the form HOST:PORT:ADDRESS" in instead("--resolve", "bank.test")
    assert "--listen is HOST:PORT" in instead("--listen", "8080")
    assert f"pin store {junk}" in instead("--store", str(junk))


def test_without_mitmproxy_it_says_how_to_get_it(place: Place) -> None:
    arguments = [sys.executable, "-m", "dynpin", *place.arguments(Path("bin"))[1:]]
    assert "pip install '.[proxy]'" in refused(arguments)
