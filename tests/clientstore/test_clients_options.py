"""Options of single libraries that could avoid the pins: httpx, requests, urllib3, aiohttp."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import requests
import trustme
import urllib3
import urllib3.exceptions

from dynpin import PinValidationError, UnenforceableContext
from dynpin.clientstore import pin_violation
from dynpin.clientstore.aiohttp import PinnedConnector, noting_response_class, pinned_session
from dynpin.clientstore.requests import PinnedAdapter, PinnedSession
from dynpin.clientstore.urllib3 import note_responses, pinned_pool_manager

from .apart import assert_unheard, every_httpx, run
from .libraries import through_a_proxy
from .sites import Proxy, Site
from .world import HOST, World, leaf_pin

# -- httpx and httpx2 -------------------------------------------------------------------------------------------------


@every_httpx
def test_httpx_runs_the_callers_hooks(world: World, library: Any, client_class: Any, async_class: Any) -> None:
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
def test_httpx_the_tls_of_a_proxy_of_the_environment_is_checked_against_its_own_pins(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    library: Any,
    client_class: Any,
    async_class: Any,
    variable: str,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(world.roots_file()))
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


@pytest.mark.parametrize("way", ["verify", "environment", "folder"])
def test_requests_custom_bundles(world: World, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    bundle = world.roots_file()
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
    bundle = str(world.roots_file())
    with Site(world.certificate, client_ca=honest.cert_pem.bytes()) as site, PinnedSession(world.store) as session:
        assert session.get(site.url(HOST), verify=bundle, cert=str(pem)).status_code == 200
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(site.url(HOST), verify=bundle)
        # Unverified for one request, and strict again for the next.
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


def test_requests_adapter_in_the_users_own_session(world: World) -> None:
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
    monkeypatch.setenv("SSL_CERT_FILE", str(world.roots_file()))
    with pinned_pool_manager(world.store) as manager:
        assert manager.request("GET", world.attacker.url(HOST)).status == 200
    honest = world.folder / "honest.pem"
    honest.write_bytes(world.honest.cert_pem.bytes())
    with pinned_pool_manager(world.store, ca_certs=str(honest), retries=False) as manager:
        assert manager.request("GET", world.site.url(HOST)).status == 200
        with pytest.raises(urllib3.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            manager.request("GET", world.attacker.url("other.test"))
    assert world.store.known_host(HOST) is not None


def test_urllib3_the_users_own_manager_with_another_context_sends_nothing(world: World) -> None:
    with urllib3.PoolManager(ssl_context=world.plain_context()) as manager:
        note_responses(manager, world.store)
        with pytest.raises(UnenforceableContext, match="not checked against the pins"):
            manager.request("GET", world.site.url(HOST))
    world.site.wait_idle()
    assert world.site.connections == 1
    assert world.site.application_bytes == 0


@through_a_proxy
@pytest.mark.filterwarnings("ignore:An HTTPS request is being sent through an HTTPS proxy:RuntimeWarning")
@pytest.mark.parametrize("enforced", [False, True])
def test_urllib3_the_users_own_manager_sends_nothing_to_an_unchecked_proxy(world: World, enforced: bool) -> None:
    world.store.pin("proxy.test", [leaf_pin(world.backup)])
    context = world.context() if enforced else world.plain_context()
    with (
        Proxy(world.rogue.issue_cert("proxy.test")) as proxy,
        urllib3.ProxyManager(
            proxy.url, ssl_context=world.context(), proxy_ssl_context=context, retries=False
        ) as manager,
    ):
        note_responses(manager, world.store)
        with pytest.raises((UnenforceableContext, urllib3.exceptions.ProxyError), match=r"proxy\.test") as caught:
            manager.request("GET", world.site.url(HOST))
        assert proxy.requests == 0
        assert (pin_violation(caught.value) is not None) is enforced
        if enforced:
            world.store.forget("proxy.test")
            assert manager.request("GET", world.site.url(HOST)).status == 200


def _urllib3_by_proxy(world: World, proxy: str, monkeypatch: pytest.MonkeyPatch) -> int:
    options: dict[str, Any] = {"proxy_url": proxy, "ca_certs": str(world.roots_file()), "retries": False}
    with pinned_pool_manager(world.store, **options) as manager:
        return manager.request("GET", world.site.url(HOST)).status


def _requests_by_proxies(world: World, proxy: str, monkeypatch: pytest.MonkeyPatch) -> int:
    with PinnedSession(world.store) as session:
        return session.get(world.site.url(HOST), proxies={"https": proxy}, verify=str(world.roots_file())).status_code


def _requests_by_environment(world: World, proxy: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.roots_file()))
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
def test_the_tls_of_a_proxy_is_checked_against_its_own_pins(
    world: World, honest: trustme.CA, monkeypatch: pytest.MonkeyPatch, visit: Callable[..., int]
) -> None:
    with Proxy(honest.issue_cert("proxy.test")) as proxy:
        assert visit(world, proxy.url, monkeypatch) == 200
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        with pytest.raises(Exception, match=r"proxy\.test shows none of its pinned keys") as caught:
            visit(world, proxy.url, monkeypatch)
        assert pin_violation(caught.value) is not None
        assert len(proxy.tunnels) == 1


def test_requests_verifies_a_proxy_with_the_roots_of_the_request(world: World, honest: trustme.CA) -> None:
    bundle, elsewhere = str(world.roots_file()), world.folder / "elsewhere.pem"
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
    world.store.pin(HOST, [leaf_pin(world.backup)])  # every request to the site must find its key wrong
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


def test_aiohttp_in_a_session_with_the_users_own_response_class(world: World) -> None:
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
