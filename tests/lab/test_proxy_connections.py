"""No connection of the proxy avoids the pins: the add-on in mitmdump, at the edges of TLS and HTTP."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dynpin.lab.network import TLSServer
from tests.clientstore.inbox import Inbox
from tests.clientstore.sites import HTTP2Site, Proxy
from tests.clientstore.world import HOST, forged_leaf
from tests.environments import ROOT

from .pinned_place import FallibleSite, Place
from .proxies import HTTP1Client, HTTP2Client, RunningProxy, curl, tunnel

_OTHER = "other.test"
_SCRIPT = Path(__file__).with_name("proxy_script.py")

Mitmdump = Callable[..., RunningProxy]


@pytest.fixture
def mitmdump(place: Place, proxy_bin: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Mitmdump]:
    """Starts mitmdump with the add-on as a script, and with mitmproxy's options."""
    monkeypatch.setenv("PROXY_STORE", str(place.folder / "pins"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with ExitStack() as stack:

        def start(*options: str) -> RunningProxy:
            settings = (f"confdir={place.folder}", f"ssl_verify_upstream_trusted_ca={place.folder / 'roots.pem'}")
            arguments = [str(proxy_bin / "mitmdump"), "--listen-host", "127.0.0.1", "--listen-port", "0"]
            for setting in (*settings, *options):
                arguments += ["--set", setting]
            return stack.enter_context(RunningProxy([*arguments, "--scripts", str(_SCRIPT)], place.folder))

        yield start


def known(place: Place, host: str = HOST) -> bool:
    with place.store() as store:
        return store.known_host(host) is not None


def pin(place: Place, host: str = HOST, **terms: object) -> None:
    with place.store() as store:
        store.pin(host, place.pins, **terms)  # type: ignore[arg-type]


def assert_nothing_read(server: TLSServer) -> None:
    server.wait_idle()
    assert server.connections
    assert server.application_bytes == 0


@pytest.mark.parametrize("strategy", ["eager", "lazy"])
def test_a_script_notes_and_refuses_before_and_after_the_request_is_known(
    place: Place, mitmdump: Mitmdump, strategy: str
) -> None:
    proxy = mitmdump(f"connection_strategy={strategy}")
    url = place.site.url(HOST)
    assert curl(proxy, url).status == 200
    assert known(place)
    place.attack()
    refused = curl(proxy, url)
    assert refused.status == 502
    assert "bank.test shows none of its pinned keys." in refused.body
    assert_nothing_read(place.site)


def test_http_2_upstream(place: Place, mitmdump: Mitmdump) -> None:
    proxy = mitmdump()
    with HTTP2Site(place.certificate, headers=place.site.headers) as site:
        # curl's answer would be HTTP/1.1 if the site had not spoken HTTP/2.
        answer = curl(proxy, site.url(HOST), "--http2", "--write-out", "%{http_version}")
        assert (answer.status, answer.body[-1]) == (200, "2")
        assert known(place)
        site.show(place.rogue.issue_cert(HOST))
        site.received = b""
        assert curl(proxy, site.url(HOST), "--http2").status == 502
        assert_nothing_read(site)


class _HTTP2Site(FallibleSite, HTTP2Site):
    pass


@pytest.mark.parametrize(("kind", "program"), [(FallibleSite, HTTP1Client), (_HTTP2Site, HTTP2Client)])
def test_a_tunnel_ends_with_its_connection_to_the_site(
    place: Place, mitmdump: Mitmdump, kind: type[FallibleSite], program: type[HTTP1Client]
) -> None:
    proxy = mitmdump()
    with kind(place.certificate, headers=place.site.headers) as site:
        with program(tunnel(proxy, (HOST, site.port), alpn=program.alpn)) as client:
            assert [client.ask(HOST)[0] for _ in range(2)] == [200, 200]
            assert site.connections == 1
            site.hang_up()
            assert client.ended()
        site.show(place.rogue.issue_cert(HOST))
        site.received = b""
        with HTTP1Client(tunnel(proxy, (HOST, site.port))) as client:
            status, body = client.ask(HOST)
            assert (status, body.splitlines()[0]) == (502, "bank.test shows none of its pinned keys.")
            assert client.ended()
        assert_nothing_read(site)


def test_a_tunnel_whose_requests_wait_for_the_handshake(place: Place, mitmdump: Mitmdump) -> None:
    """With HTTP/2 it survives a refusal: each handshake is checked, and passes after the fault is fixed."""
    proxy = mitmdump("connection_strategy=lazy")
    pin(place)
    with (
        _HTTP2Site(place.rogue.issue_cert(HOST)) as site,
        HTTP2Client(tunnel(proxy, (HOST, site.port), alpn="h2")) as client,
    ):
        status, body = client.ask(HOST)
        assert status == 502
        assert "dynpin refused it: bank.test shows none of its pinned keys. No request was sent." in body
        # Now there is a request to answer with the page, and after that a new attempt is made.
        status, body = client.ask(HOST)
        assert (status, body.splitlines()[0]) == (502, "bank.test shows none of its pinned keys.")
        assert client.ask(HOST)[0] == 502
        assert_nothing_read(site)
        site.show(place.certificate)
        assert [client.ask(HOST)[0] for _ in range(2)] == [502, 200]


def test_a_tunnel_in_stock_is_let_through_when_its_pins_are_forgotten(place: Place, mitmdump: Mitmdump) -> None:
    proxy = mitmdump()
    pin(place)
    place.attack()
    address = (HOST, place.site.port)
    with HTTP1Client(tunnel(proxy, address)) as first, HTTP1Client(tunnel(proxy, address)) as second:
        assert first.ask(HOST)[0] == 502
        assert_nothing_read(place.site)
        with place.store() as store:
            assert store.forget(HOST)
        assert second.ask(HOST)[0] == 200


def test_verification_that_is_switched_off_fails_closed_and_notes_nothing(place: Place, mitmdump: Mitmdump) -> None:
    proxy = mitmdump("ssl_insecure=true")
    assert curl(proxy, place.site.url(HOST)).status == 200
    assert not known(place)
    pin(place)
    for certificate in (place.certificate, place.rogue.issue_cert(HOST)):
        place.site.show(certificate)
        place.site.received = b""
        refused = curl(proxy, place.site.url(HOST))
        assert refused.status == 502
        assert "host name verification is switched off" in refused.body
        assert_nothing_read(place.site)


def test_a_forged_chain_proves_nothing(place: Place, mitmdump: Mitmdump) -> None:
    """A leaf that only names the pinned authority as its issuer, with verification switched off."""
    key, chain = forged_leaf(place.honest)
    (place.folder / "key.pem").write_bytes(key)
    (place.folder / "chain.pem").write_bytes(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place.folder / "chain.pem", place.folder / "key.pem")
    place.site.use(context)
    with place.store() as store:
        store.pin(HOST, [place.authority_pin])
    assert curl(mitmdump("ssl_insecure=true"), place.site.url(HOST)).status == 502
    assert_nothing_read(place.site)


def test_the_name_is_the_one_that_tls_used(place: Place, mitmdump: Mitmdump) -> None:
    """A tunnel to one name, TLS by a second one, a request for a third."""
    proxy = mitmdump()
    with HTTP1Client(tunnel(proxy, ("front.test", place.site.port), HOST)) as client:
        assert client.ask(_OTHER)[0] == 200
        assert not known(place)
        assert not known(place, _OTHER)
        # A header from the site with the name that TLS has verified is noted.
        assert client.ask(HOST)[0] == 200
        assert known(place)
        read = place.site.application_bytes
        pin(place, _OTHER)
        status, body = client.ask(_OTHER)
    assert status == 421
    assert body.startswith("other.test is pinned, but this request for it came on a connection to bank.test.\n")
    place.site.wait_idle()
    assert place.site.application_bytes == read
    place.attack()
    with HTTP1Client(tunnel(proxy, ("front.test", place.site.port), HOST)) as client:
        assert client.ask("front.test")[0] == 502
    assert_nothing_read(place.site)


def test_an_ip_address_is_never_pinned(place: Place, mitmdump: Mitmdump) -> None:
    proxy = mitmdump()
    place.site.show(place.honest.issue_cert("127.0.0.1"))
    assert curl(proxy, place.site.url("127.0.0.1")).status == 200
    with place.store() as store:
        assert len(store) == 0


def test_plain_http_is_never_noted(place: Place, mitmdump: Mitmdump) -> None:
    with Inbox() as inbox:
        inbox.headers = place.site.headers[1:]
        answer = curl(mitmdump(), f"http://{HOST}:{inbox.port}/", "--data", "report")
        assert (answer.status, inbox.requests[0][0]) == (204, "/")
    assert not known(place)


def test_another_proxy_upstream(place: Place, mitmdump: Mitmdump) -> None:
    with Inbox() as inbox, Proxy() as upstream:
        proxy = mitmdump(f"mode=upstream:{upstream.url}")
        place.say(report_uri=f"http://127.0.0.1:{inbox.port}/hpkp")
        assert curl(proxy, place.site.url(HOST)).status == 200
        assert known(place)
        place.attack()
        assert curl(proxy, place.site.url(HOST)).status == 502
        report = inbox.next_report()
        assert upstream.tunnels == [f"{HOST}:{place.site.port}"] * 2
    assert (report["hostname"], report["port"]) == (HOST, place.site.port)
    assert_nothing_read(place.site)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_proves_nothing(
    place: Place, mitmdump: Mitmdump, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    monkeypatch.setenv("PROXY_RESUMES", "1")
    proxy = mitmdump()
    place.site.headers = []
    place.site.maximum_version = version
    place.site.show(place.certificate)
    url = place.site.url(HOST)
    assert [curl(proxy, url).status for _ in range(2)] == [200, 200]
    pin(place)
    place.site.received = b""
    refused = curl(proxy, url)
    assert refused.status == 502
    assert "its TLS session was resumed, and dynpin did not see the handshake that made the session" in refused.body
    assert_nothing_read(place.site)


def test_a_renegotiation_ends_the_connection(place: Place, proxy_bin: Path) -> None:
    """It could change the certificate after the check."""
    chain, key = place.folder / "chain.pem", place.folder / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in place.certificate.cert_chain_pems))
    key.write_bytes(place.certificate.private_key_pem.bytes())
    module = [proxy_bin / "python", "-m", "tests.lab.proxy_renegotiation"]
    files = [place.folder / "roots.pem", chain, key]
    done = subprocess.run(
        [*map(str, (*module, *files))], capture_output=True, text=True, check=True, cwd=ROOT, timeout=300
    )
    assert done.stdout.splitlines() == ["plain: answer", "guarded: the end"]


def test_an_upgrade_to_websocket_is_refused_like_any_request(place: Place, mitmdump: Mitmdump) -> None:
    pin(place)
    place.attack()
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA")
    headers = [option for field in upgrade for option in ("--header", field)]
    assert curl(mitmdump(), place.site.url(HOST), *headers).status == 502
    assert_nothing_read(place.site)


def test_a_fault_of_the_add_on_lets_nothing_through(
    place: Place, mitmdump: Mitmdump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_FAILS", "1")
    assert curl(mitmdump(), place.site.url(HOST)).status == 502
    assert place.site.connections
    assert place.site.application_bytes == 0


def test_a_store_that_cannot_be_read_lets_nothing_through(place: Place, mitmdump: Mitmdump) -> None:
    proxy = mitmdump()
    assert curl(proxy, place.site.url(HOST)).status == 200
    place.site.received = b""
    for file in place.folder.glob("pins*"):
        file.write_bytes(b"no database" * 400)
    refused = curl(proxy, place.site.url(HOST))
    assert refused.status == 502
    assert "the pins of bank.test cannot be read. No request was sent." in refused.body
    assert_nothing_read(place.site)


def test_http_3_is_refused(proxy_bin: Path, tmp_path: Path) -> None:
    code = """
from mitmproxy import connection
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from dynpin.clientstore import PinStore
from dynpin.lab.proxy import PinningAddon

with PinStore.private() as store:
    client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    for transport, tls in (("udp", True), ("udp", False), ("tcp", True)):
        server = connection.Server(address=("bank.test", 443), transport_protocol=transport, tls=tls)
        PinningAddon(store).server_connect(ServerConnectionHookData(server, client))
        print(transport, tls, server.error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [proxy_bin / "python", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines() == [
        "udp True TLS over UDP (HTTP/3) cannot be checked against the pins, so dynpin refuses it",
        "udp False None",
        "tcp True None",
    ]
