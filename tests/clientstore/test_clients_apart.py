"""Where the client libraries differ: ways past the context, options of their own, and what only one of them has."""

from __future__ import annotations

import asyncio
import gc
import http.client
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
import trustme
import urllib3
import urllib3.exceptions

from dynpin import PinValidationError, PublicKeyPins, UnenforceableContext
from dynpin.clientstore import PinStore, ReportQueue, enforce, note_response, peer_of, pin_violation
from dynpin.clientstore.aiohttp import PinnedConnector, noting_response_class, pinned_session
from dynpin.clientstore.http_client import PinnedHTTPSConnection, PinnedHTTPSHandler
from dynpin.clientstore.httpx import PinnedAsyncClient, PinnedAsyncTransport, PinnedClient, PinnedTransport
from dynpin.clientstore.httpx2 import PinnedAsyncClient as PinnedAsyncClient2
from dynpin.clientstore.httpx2 import PinnedAsyncTransport as PinnedAsyncTransport2
from dynpin.clientstore.httpx2 import PinnedClient as PinnedClient2
from dynpin.clientstore.httpx2 import PinnedTransport as PinnedTransport2
from dynpin.clientstore.requests import PinnedAdapter, PinnedSession
from dynpin.clientstore.urllib3 import note_responses, pinned_pool_manager

from .inbox import Inbox
from .opened import files_left_open, open_files
from .sites import Proxy, Site
from .world import HOST, World, leaf_pin

HTTPX = [(httpx, PinnedClient, PinnedAsyncClient), (httpx2, PinnedClient2, PinnedAsyncClient2)]
every_httpx = pytest.mark.parametrize(("library", "client_class", "async_class"), HTTPX, ids=["httpx", "httpx2"])


def run(main: Callable[[], Awaitable[object]]) -> object:
    async def wrapped() -> object:
        return await main()

    return asyncio.run(wrapped())


def assert_unheard(world: World, error: BaseException) -> None:
    violation = pin_violation(error)
    assert violation is not None
    error.__traceback__ = None
    gc.collect()
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


# -- verify=False and what is like it ---------------------------------------------------------------------------------


def _by_httpx(world: World, url: str) -> object:
    with PinnedClient(world.store, verify=False) as client:
        return client.get(url)


def _by_httpx_async(world: World, url: str) -> object:
    async def get() -> object:
        async with PinnedAsyncClient(world.store, verify=False) as client:
            return await client.get(url)

    return run(get)


def _by_httpx2(world: World, url: str) -> object:
    with PinnedClient2(world.store, verify=False) as client:
        return client.get(url)


def _by_requests(world: World, url: str) -> object:
    with PinnedSession(world.store) as session:
        return session.get(url, verify=False)


def _by_requests_with_a_context(world: World, url: str) -> object:
    with PinnedSession(world.store, context=world.plain_context()) as session:
        return session.get(url, verify=False)


def _by_urllib3(world: World, url: str) -> object:
    with pinned_pool_manager(world.store, cert_reqs="CERT_NONE", retries=False) as manager:
        return manager.request("GET", url)


def _by_http_client(world: World, url: str) -> object:
    port = int(url.rpartition(":")[2].strip("/"))
    connection = PinnedHTTPSConnection(HOST, port, store=world.store, context=_unverified())
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def _by_urllib_request(world: World, url: str) -> object:
    opener = urllib.request.build_opener(PinnedHTTPSHandler(world.store, context=_unverified()))
    with opener.open(url) as response:
        return response.read()


def _by_aiohttp(ssl_of: Callable[[World], Any]) -> Callable[[World, str], object]:
    def get(world: World, url: str) -> object:
        async def main() -> object:
            async with pinned_session(world.store) as session, session.get(url, ssl=ssl_of(world)) as response:
                return await response.read()

        return run(main)

    return get


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _fingerprint(world: World) -> aiohttp.Fingerprint:
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    leaf = x509.load_pem_x509_certificate(world.certificate.cert_chain_pems[0].bytes())
    return aiohttp.Fingerprint(hashlib.sha256(leaf.public_bytes(Encoding.DER)).digest())


UNVERIFIED: dict[str, Callable[[World, str], object]] = {
    "httpx": _by_httpx,
    "httpx-async": _by_httpx_async,
    "httpx2": _by_httpx2,
    "requests": _by_requests,
    "requests-with-a-context": _by_requests_with_a_context,
    "urllib3": _by_urllib3,
    "http.client": _by_http_client,
    "urllib.request": _by_urllib_request,
    "aiohttp-ssl-false": _by_aiohttp(lambda world: False),
    "aiohttp-own-context": _by_aiohttp(lambda world: _unverified()),
    "aiohttp-fingerprint": _by_aiohttp(_fingerprint),
}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("name", UNVERIFIED)
def test_without_verification_pinned_hosts_are_refused_and_nothing_is_noted(world: World, name: str) -> None:
    UNVERIFIED[name](world, world.site.url(HOST))
    assert len(world.store) == 0
    assert world.site.application_bytes > 0
    world.pin_site()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library's own, of which pin_violation knows
        UNVERIFIED[name](world, world.attacker.url(HOST))
    assert "verification is switched off" in str(pin_violation(caught.value))
    assert_unheard(world, caught.value)


# -- a name for TLS that is not the URL's -----------------------------------------------------------------------------


@pytest.fixture
def other_name(world: World, honest: trustme.CA) -> World:
    """The site shows a certificate for another name, which the client asks TLS for."""
    certificate = honest.issue_cert("other.test")
    world.site.headers = [
        ("Public-Key-Pins", str(PublicKeyPins((leaf_pin(certificate), leaf_pin(world.backup)), max_age=60)))
    ]
    world.site.show(certificate)
    return world


@every_httpx
@pytest.mark.parametrize("name", ["other.test", "not a name", "127.0.0.1"])
def test_httpx_sni_hostname_of_another_name_is_refused(
    other_name: World, library: Any, client_class: Any, async_class: Any, name: str
) -> None:
    # The connection would be the pool's for the URL's host, and carry the requests that come after.
    other_name.pin_site()
    url, extensions = other_name.site.url(HOST), {"sni_hostname": name}

    async def main() -> None:
        async with async_class(other_name.store, verify=other_name.plain_context()) as client:
            await client.get(url, extensions=extensions)

    with client_class(other_name.store, verify=other_name.plain_context()) as client:
        with pytest.raises(UnenforceableContext, match="the URL of the name that TLS shall verify"):
            client.get(url, extensions=extensions)
        with pytest.raises(library.ConnectError):
            client.get(url)
    with pytest.raises(UnenforceableContext):
        run(main)
    other_name.site.wait_idle()
    assert other_name.site.application_bytes == 0


@every_httpx
def test_httpx_sni_hostname_of_the_same_host_is_taken(
    world: World, library: Any, client_class: Any, async_class: Any
) -> None:
    with client_class(world.store, verify=world.plain_context()) as client:
        assert client.get(world.site.url(HOST), extensions={"sni_hostname": HOST.upper()}).status_code == 200
    assert world.store.known_host(HOST) is not None


def test_urllib3_server_hostname_is_not_noted(other_name: World) -> None:
    options: dict[str, Any] = {"server_hostname": "other.test", "assert_hostname": "other.test"}
    with pinned_pool_manager(other_name.store, ssl_context=other_name.plain_context(), **options) as manager:
        assert manager.request("GET", other_name.site.url(HOST)).status == 200
    assert len(other_name.store) == 0


def test_aiohttp_server_hostname_is_not_noted(other_name: World) -> None:
    async def main() -> None:
        async with (
            pinned_session(other_name.store, ssl=other_name.plain_context()) as session,
            session.get(other_name.site.url(HOST), server_hostname="other.test") as response,
        ):
            assert response.status == 200

    run(main)
    assert len(other_name.store) == 0


# -- httpx and httpx2 -------------------------------------------------------------------------------------------------


@every_httpx
def test_httpx_takes_the_callers_hooks_besides_its_own(
    world: World, library: Any, client_class: Any, async_class: Any
) -> None:
    seen: list[str] = []

    def on_request(request: Any) -> None:
        seen.append(f"asked {request.url.host}")

    def on_response(response: Any) -> None:
        seen.append("answered")
        raise LookupError("what a caller's hook raises")

    hooks = {"request": [on_request], "response": [on_response]}
    with (
        client_class(world.store, verify=world.plain_context(), event_hooks=hooks) as client,
        pytest.raises(LookupError),
    ):
        client.get(world.site.url(HOST))
    assert seen == [f"asked {HOST}", "answered"]
    assert world.store.known_host(HOST) is not None  # noted all the same
    assert hooks == {"request": [on_request], "response": [on_response]}


@every_httpx
def test_httpx_concurrent_requests_report_each_its_own_port(
    world: World, library: Any, client_class: Any, async_class: Any
) -> None:
    world.pin_site()

    async def main() -> list[PinValidationError | None]:
        async with async_class(world.store, verify=world.plain_context()) as client:
            urls = [world.attacker.url(HOST), second.url(HOST)]
            return [
                pin_violation(error) for error in await asyncio.gather(*map(client.get, urls), return_exceptions=True)
            ]

    with Site(world.stolen_name) as second:
        violations = asyncio.run(main())
        ports = [found.report.port for found in violations if found is not None and found.report is not None]
        assert ports == [world.attacker.port, second.port]


@every_httpx
@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy"])
def test_httpx_the_tls_of_a_proxy_of_the_environment_is_held_against_its_own_pins(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    library: Any,
    client_class: Any,
    async_class: Any,
    variable: str,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(_roots(world)))
    monkeypatch.delenv("no_proxy", raising=False)

    def visit() -> object:
        with client_class(world.store, verify=world.plain_context()) as client:
            return client.get(world.site.url(HOST)).status_code

    async def visit_async() -> object:
        async with async_class(world.store, verify=world.plain_context()) as client:
            return (await client.get(world.site.url(HOST))).status_code

    with Proxy(world.honest.issue_cert("proxy.test")) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert (visit(), run(visit_async), len(proxy.tunnels)) == (200, 200, 2)
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        attempts: list[Callable[[], object]] = [visit, lambda: run(visit_async)]
        for attempt in attempts:
            with pytest.raises(Exception, match=r"proxy\.test shows none of its pinned keys") as caught:
                attempt()
            assert pin_violation(caught.value) is not None
        assert len(proxy.tunnels) == 2
        for exempt in ("*", f"elsewhere.test, {HOST}"):
            monkeypatch.setenv("no_proxy", exempt)
            assert (visit(), run(visit_async), len(proxy.tunnels)) == (200, 200, 2)


@every_httpx
def test_httpx_streamed_responses_are_noted(world: World, library: Any, client_class: Any, async_class: Any) -> None:
    with (
        client_class(world.store, verify=world.plain_context()) as client,
        client.stream("GET", world.site.url(HOST)) as response,
    ):
        assert world.store.known_host(HOST) is not None
        assert response.read() == b"hello"


# -- requests ---------------------------------------------------------------------------------------------------------


def _roots(world: World) -> Path:
    bundle = world.folder / "roots.pem"
    bundle.write_bytes(world.honest.cert_pem.bytes() + world.rogue.cert_pem.bytes())
    return bundle


@pytest.mark.parametrize("way", ["verify", "environment", "folder"])
def test_requests_custom_bundles(world: World, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    bundle = _roots(world)
    if way == "folder":
        bundle = world.folder / "roots"
        bundle.mkdir()
        for authority in (world.honest, world.rogue):
            (bundle / f"{_openssl_hash(authority)}.0").write_bytes(authority.cert_pem.bytes())
    if way == "environment":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    verify: dict[str, Any] = {} if way == "environment" else {"verify": str(bundle)}
    with PinnedSession(world.store) as session:
        assert session.get(world.site.url(HOST), **verify).status_code == 200
        assert world.store.known_host(HOST) is not None
        with pytest.raises(requests.exceptions.SSLError) as caught:
            session.get(world.attacker.url(HOST), **verify)
    assert_unheard(world, caught.value)


def _openssl_hash(authority: trustme.CA) -> str:
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-hash"], input=authority.cert_pem.bytes(), capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def test_requests_client_certificates_and_verify_do_not_leak_into_the_next_request(
    world: World, honest: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = honest.issue_cert("client@bank.test")
    pem = world.folder / "client.pem"
    client.private_key_and_cert_chain_pem.write_to_path(str(pem))
    bundle = str(_roots(world))
    with Site(world.certificate, client_ca=honest.cert_pem.bytes()) as site, PinnedSession(world.store) as session:
        assert session.get(site.url(HOST), verify=bundle, cert=str(pem)).status_code == 200
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(site.url(HOST), verify=bundle)
        # Unverified for one request, and strict for the next.
        with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
            session.get(world.site.url(HOST), verify=False)
        with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            session.get(world.site.url(HOST))  # requests' own roots
        assert session.get(world.site.url(HOST), verify=bundle).status_code == 200


def test_requests_client_certificate_for_one_request_does_not_stay_in_the_callers_context(
    world: World, honest: trustme.CA
) -> None:
    pem = world.folder / "client.pem"
    honest.issue_cert("client@bank.test").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with (
        Site(world.certificate, client_ca=honest.cert_pem.bytes()) as site,
        PinnedSession(world.store, context=world.plain_context()) as session,
    ):
        with pytest.raises(TypeError, match=r"cert=.*load_cert_chain"):
            session.get(site.url(HOST), cert=str(pem))
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(site.url(HOST))
        assert site.handshakes == 0


def test_requests_adapter_in_a_session_of_ones_own(world: World) -> None:
    with requests.Session() as session:
        session.mount("https://", PinnedAdapter(world.store, context=world.plain_context(), max_retries=2))
        assert session.get(world.site.url(HOST)).status_code == 200
        with pytest.raises(requests.exceptions.SSLError) as caught:
            session.get(world.attacker.url(HOST))
    assert_unheard(world, caught.value)


# -- urllib3 ----------------------------------------------------------------------------------------------------------


def test_urllib3_without_retries_raises_the_ssl_error(world: World) -> None:
    world.pin_site()
    with (
        pinned_pool_manager(world.store, ssl_context=world.plain_context(), retries=False) as manager,
        pytest.raises(urllib3.exceptions.SSLError) as caught,
    ):
        manager.request("GET", world.attacker.url(HOST))
    assert_unheard(world, caught.value)


def test_urllib3_trusts_the_roots_that_it_is_given_and_no_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(_roots(world)))
    with pinned_pool_manager(world.store) as manager:
        assert manager.request("GET", world.attacker.url(HOST)).status == 200
    honest = world.folder / "honest.pem"
    honest.write_bytes(world.honest.cert_pem.bytes())
    with pinned_pool_manager(world.store, ca_certs=str(honest), retries=False) as manager:
        assert manager.request("GET", world.site.url(HOST)).status == 200
        with pytest.raises(urllib3.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            manager.request("GET", world.attacker.url("other.test"))
    assert world.store.known_host(HOST) is not None


def test_urllib3_a_manager_of_ones_own_with_another_context_sends_nothing(world: World) -> None:
    with urllib3.PoolManager(ssl_context=world.plain_context()) as manager:
        note_responses(manager, world.store)
        with pytest.raises(UnenforceableContext, match="not held against the pins"):
            manager.request("GET", world.site.url(HOST))
    world.site.wait_idle()
    assert world.site.connections == 1
    assert world.site.application_bytes == 0


def _urllib3_by_proxy(world: World, proxy: str, monkeypatch: pytest.MonkeyPatch) -> int:
    options: dict[str, Any] = {"proxy_url": proxy, "ca_certs": str(_roots(world)), "retries": False}
    with pinned_pool_manager(world.store, **options) as manager:
        return manager.request("GET", world.site.url(HOST)).status


def _requests_by_proxies(world: World, proxy: str, monkeypatch: pytest.MonkeyPatch) -> int:
    with PinnedSession(world.store) as session:
        return session.get(world.site.url(HOST), proxies={"https": proxy}, verify=str(_roots(world))).status_code


def _requests_by_environment(world: World, proxy: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(_roots(world)))
    with PinnedSession(world.store) as session:
        return session.get(world.site.url(HOST)).status_code


def _requests_with_a_context(world: World, proxy: str, monkeypatch: pytest.MonkeyPatch) -> int:
    with PinnedSession(world.store, context=world.plain_context()) as session:
        return session.get(world.site.url(HOST), proxies={"https": proxy}).status_code


@pytest.mark.parametrize(
    "visit",
    [_urllib3_by_proxy, _requests_by_proxies, _requests_by_environment, _requests_with_a_context],
    ids=lambda visit: visit.__name__,
)
def test_the_tls_of_a_proxy_is_held_against_its_own_pins(
    world: World, honest: trustme.CA, monkeypatch: pytest.MonkeyPatch, visit: Callable[..., int]
) -> None:
    with Proxy(honest.issue_cert("proxy.test")) as proxy:
        assert visit(world, proxy.url, monkeypatch) == 200
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        with pytest.raises(Exception, match=r"proxy\.test shows none of its pinned keys") as caught:
            visit(world, proxy.url, monkeypatch)
        assert pin_violation(caught.value) is not None
        assert len(proxy.tunnels) == 1


def test_requests_trusts_for_a_proxy_what_each_request_trusts(world: World, honest: trustme.CA) -> None:
    bundle, elsewhere = str(_roots(world)), world.folder / "elsewhere.pem"
    elsewhere.write_bytes(trustme.CA().cert_pem.bytes())
    with Proxy(honest.issue_cert("proxy.test")) as proxy, PinnedSession(world.store) as session:
        options: dict[str, Any] = {"proxies": {"https": proxy.url}}
        assert session.get(world.site.url(HOST), verify=bundle, **options).status_code == 200
        with pytest.raises(requests.exceptions.ProxyError, match="CERTIFICATE_VERIFY_FAILED"):
            session.get(world.site.url(HOST), verify=str(elsewhere), **options)
        assert len(proxy.tunnels) == 1


def _forwarded_by_urllib3(world: World, proxy: str, **options: Any) -> None:
    with pinned_pool_manager(world.store, proxy_url=proxy, **options) as manager:
        manager.request("GET", world.site.url(HOST))


def _forwarded_by_a_manager_of_ones_own(world: World, proxy: str, **options: Any) -> None:
    with urllib3.ProxyManager(proxy, **options) as manager:
        note_responses(manager, world.store)
        manager.request("GET", world.site.url(HOST))


def _forwarded_by_requests(world: World, proxy: str, **options: Any) -> None:
    adapter = PinnedAdapter(world.store, context=world.plain_context())
    with requests.Session() as session:
        session.mount("https://", adapter)
        adapter.proxy_manager_for(proxy, **options)
        session.get(world.site.url(HOST), proxies={"https": proxy})


@pytest.mark.parametrize(
    "visit",
    [_forwarded_by_urllib3, _forwarded_by_a_manager_of_ones_own, _forwarded_by_requests],
    ids=lambda visit: visit.__name__,
)
def test_a_proxy_that_would_speak_tls_with_the_sites_itself_is_refused(
    world: World, honest: trustme.CA, visit: Callable[..., None]
) -> None:
    world.store.pin(HOST, [leaf_pin(world.backup)])  # whoever speaks with the site must find its key wrong
    options = {"use_forwarding_for_https": True, "proxy_ssl_context": world.plain_context()}
    with Proxy(honest.issue_cert("proxy.test")) as proxy:
        with pytest.raises(UnenforceableContext, match=r"use_forwarding_for_https=True.*leave it out"):
            visit(world, proxy.url, **options)
        assert proxy.requests == 0


# -- aiohttp ----------------------------------------------------------------------------------------------------------


def test_aiohttp_refuses_a_connector_that_is_not_enforced(world: World) -> None:
    async def main() -> None:
        async with aiohttp.TCPConnector() as connector:
            with pytest.raises(UnenforceableContext, match="PinnedConnector"):
                pinned_session(world.store, connector=connector)

    run(main)


def test_aiohttp_a_context_given_to_one_request_is_enforced(world: World) -> None:
    world.pin_site()

    async def main() -> None:
        async with pinned_session(world.store) as session:
            context = world.plain_context()
            async with session.get(world.site.url(HOST), ssl=context) as response:
                assert response.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError) as caught:
                await session.get(world.attacker.url(HOST), ssl=context)
            assert pin_violation(caught.value) is not None

    run(main)
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


def test_aiohttp_in_a_session_with_a_response_class_of_ones_own(world: World) -> None:
    class Response(aiohttp.ClientResponse):
        mine = True

    async def main() -> None:
        connector = PinnedConnector(world.store, ssl=world.plain_context())
        response_class = noting_response_class(world.store, Response)
        async with (
            aiohttp.ClientSession(connector=connector, response_class=response_class) as session,
            session.get(world.site.url(HOST)) as response,
        ):
            assert isinstance(response, Response)

    run(main)
    assert world.store.known_host(HOST) is not None


# -- the defaults -----------------------------------------------------------------------------------------------------

DEFAULTS: dict[str, Callable[[], Any]] = {
    "httpx": PinnedTransport,
    "httpx-async": PinnedAsyncTransport,
    "httpx2": PinnedTransport2,
    "httpx2-async": PinnedAsyncTransport2,
    "requests": PinnedAdapter,
    "http.client": lambda: PinnedHTTPSConnection(HOST),
    "urllib.request": PinnedHTTPSHandler,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_clients_without_a_store_share_the_users_own_and_leave_no_file_open(name: str) -> None:
    clients = [DEFAULTS[name]() for _ in range(30)]
    stores: set[PinStore] = {client.pin_store for client in clients}
    (store,) = stores
    assert store.is_default
    assert len(store) >= 0
    assert str(store.path) in open_files(store.path)
    del clients
    assert files_left_open(store.path) == []
    assert len(store) >= 0  # it is opened again when it is used again
    store.rest()


def test_a_store_that_was_given_stays_open(world: World) -> None:
    client = PinnedClient(world.store)
    del client
    gc.collect()
    assert len(world.store) == 0


# -- the end of a process ----------------------------------------------------------------------------------------------

LEAVING = """
import atexit, ssl, sys
from dynpin.clientstore import PinStore, pin_violation
from dynpin.clientstore.reports import queue
from dynpin.clientstore.httpx import PinnedClient
from dynpin.lab.network import loopback_names

queue._GRACE = 120.0  # a busy machine may need longer than a person would wait
# Runs when finalizers have run, and before the queue of reports is waited for.
atexit.register(print, "leaving", flush=True)
path, roots, url = sys.argv[1:]
with loopback_names():
    try:
        PinnedClient(PinStore(path), verify=ssl.create_default_context(cafile=roots)).get(url)
    except Exception as error:
        assert pin_violation(error)
"""


def test_a_process_that_ends_at_once_still_delivers_its_report(world: World) -> None:
    arguments = [str(world.folder / "pins"), str(_roots(world)), world.attacker.url(HOST)]
    with Inbox() as inbox:
        world.store.pin(HOST, world.header.pins, report_uri=f"http://127.0.0.1:{inbox.port}/hpkp")
        process = subprocess.Popen(
            [sys.executable, "-c", LEAVING, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            # The answer comes when the process is on its way out.
            inbox.on_post = process.stdout.readline
            inbox.next_report()
            _, told = process.communicate(timeout=300)
    assert (process.returncode, told) == (0, "")
    assert [report.state for report in ReportQueue(world.store, background=False).reports()] == ["sent"]


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_asyncio_streams_are_enforced_and_noted_by_hand(world: World) -> None:
    context = enforce(world.plain_context(), world.store)

    async def main() -> None:
        reader, writer = await asyncio.open_connection(HOST, world.site.port, ssl=context)
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        fields = http.client.parse_headers(_Lines((await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[2]))
        peer = peer_of(writer.get_extra_info("ssl_object"))
        noting = note_response(world.store, HOST, peer, fields.get_all("Public-Key-Pins", []), port=world.site.port)
        assert noting.outcome == "noted"
        writer.close()
        await writer.wait_closed()
        with pytest.raises(PinValidationError):
            await asyncio.open_connection(HOST, world.attacker.port, ssl=context)

    run(main)
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


class _Lines:
    def __init__(self, data: bytes) -> None:
        self._lines = iter(data.splitlines(keepends=True))

    def readline(self, limit: int = -1) -> bytes:
        return next(self._lines, b"")


def test_what_was_not_enforced_is_ignored_with_the_reason(world: World) -> None:
    noting = note_response(world.store, HOST, None, [str(world.header)])
    assert (noting.outcome, noting.reason) == ("ignored", f"the TLS connection for {HOST} was not enforced")
    assert note_response(world.store, "not a name", None, [str(world.header)]).outcome == "ignored"


def test_a_store_that_cannot_be_written_does_not_break_the_response(world: World) -> None:
    with PinnedClient(world.store, verify=world.plain_context()) as client:
        client.get(world.site.url(HOST))  # the connection is in the pool from here on
        world.store.close()
        assert client.get(world.site.url(HOST)).status_code == 200


# -- finding the violation --------------------------------------------------------------------------------------------

VIOLATION = PinValidationError("refused")


def _from(cause: BaseException) -> BaseException:
    try:
        raise RuntimeError("outer") from cause
    except RuntimeError as error:
        return error


def _during(context: BaseException) -> BaseException:
    try:
        try:
            raise context
        except BaseException:  # noqa: BLE001 - whatever it was given
            raise RuntimeError("outer")  # noqa: B904 - its context is what is looked for
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        VIOLATION,
        _from(VIOLATION),
        _during(PinValidationError("refused")),
        urllib.error.URLError(VIOLATION),
        RuntimeError("text", VIOLATION),
        BaseExceptionGroup("several", [ValueError(), _from(VIOLATION)]),
    ],
    ids=["itself", "cause", "context", "reason", "argument", "group"],
)
def test_the_violation_is_found_wherever_it_is(error: BaseException) -> None:
    assert isinstance(pin_violation(error), PinValidationError)


def test_other_errors_hold_no_violation_and_a_circle_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    for error in (first, ssl.SSLCertVerificationError(1, "expired"), None):
        assert pin_violation(error) is None
