"""Every client library behind a proxy: the site is noted and enforced, and a TLS proxy by its own name."""

from __future__ import annotations

import gc
import importlib

import pytest
import trustme

from dynpin import PublicKeyPins
from dynpin.clientstore import pin_violation

from .libraries import LIBRARIES, Library, every_library, pins_of, refused, through_a_proxy, visit
from .sites import Proxy
from .world import HOST, World, leaf_pin


def address_of(proxy: Proxy, library: Library, world: World) -> object:
    """A proxy of TLS as the library is told of it: those of httpx have a context of their own."""
    if library.proxy_class is None:
        return proxy.url
    return library.proxy_class(proxy.url, ssl_context=world.plain_context())


@through_a_proxy
@every_library
def test_behind_connect_the_site_is_noted_and_the_attacker_refused(world: World, library: Library) -> None:
    # The proxy's own answer to CONNECT pins nothing.
    own = PublicKeyPins((leaf_pin(world.stolen_name), leaf_pin(world.backup)), max_age=60)
    with Proxy(headers=(("Public-Key-Pins", str(own)),)) as proxy:
        assert visit(world, library, world.site.url(HOST), proxy=proxy.url) == [200]
        assert pins_of(world.store) == world.header.pins
        violation = refused(world, library, world.attacker.url(HOST), proxy=proxy.url)
        assert proxy.tunnels == [f"{HOST}:{world.site.port}", f"{HOST}:{world.attacker.port}"]
    assert violation.report is not None
    assert violation.report.port == world.attacker.port


@through_a_proxy
@pytest.mark.filterwarnings("ignore:An HTTPS request is being sent through an HTTPS proxy:RuntimeWarning")
@pytest.mark.parametrize("library", [one for one in LIBRARIES if one.tls_proxies], ids=str)
def test_tls_inside_the_tls_of_a_proxy(world: World, library: Library, honest: trustme.CA) -> None:
    certificate = honest.issue_cert("proxy.test")
    own = PublicKeyPins((leaf_pin(certificate), leaf_pin(world.backup)), max_age=60)
    with Proxy(certificate, headers=(("Public-Key-Pins", str(own)),)) as proxy:
        address = address_of(proxy, library, world)
        assert visit(world, library, world.site.url(HOST), proxy=address) == [200]
        assert pins_of(world.store) == world.header.pins
        assert pins_of(world.store, "proxy.test") == ()
        with pytest.raises(library.error) as caught:
            visit(world, library, world.attacker.url(HOST), proxy=address)
        assert pin_violation(caught.value) is not None
    gc.collect()
    world.attacker.wait_idle()
    assert world.attacker.connections > 0
    assert world.attacker.application_bytes == 0


@through_a_proxy
@pytest.mark.filterwarnings("ignore:An HTTPS request is being sent through an HTTPS proxy:RuntimeWarning")
@pytest.mark.parametrize("library", [one for one in LIBRARIES if one.tls_proxies], ids=str)
def test_a_proxy_that_shows_a_wrong_key_is_refused_under_its_own_name(
    world: World, library: Library, honest: trustme.CA
) -> None:
    world.store.pin("proxy.test", [leaf_pin(world.backup)])
    with Proxy(honest.issue_cert("proxy.test")) as proxy:
        address = address_of(proxy, library, world)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is differs by library, and is no site's error
            visit(world, library, world.site.url(HOST), proxy=address)
        assert proxy.tunnels == []
    violation = pin_violation(caught.value)
    assert violation is not None
    assert violation.report is not None
    assert (violation.report.hostname, violation.report.port) == ("proxy.test", None)


@pytest.mark.parametrize("module", ["httpx", "httpx2"])
def test_the_context_that_httpx_makes_for_a_proxy_is_enforced_too(
    world: World, module: str, honest: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = world.folder / "roots-of-the-proxy.pem"
    roots.write_bytes(honest.cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    library = importlib.import_module(f"dynpin.clientstore.{module}")
    with Proxy(honest.issue_cert("proxy.test")) as proxy:
        with library.PinnedClient(world.store, verify=world.plain_context(), proxy=proxy.url) as client:
            assert client.get(world.site.url(HOST)).status_code == 200
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        with library.PinnedClient(world.store, verify=world.plain_context(), proxy=proxy.url) as client:
            with pytest.raises(Exception, match=r"proxy\.test shows none of its pinned keys") as caught:
                client.get(world.site.url(HOST))
            assert pin_violation(caught.value) is not None
        assert len(proxy.tunnels) == 1


def test_a_forwarded_response_is_not_noted_for_the_tls_proxy(world: World, honest: trustme.CA) -> None:
    # urllib3 has this response on an HTTPSConnection; requests gives http:// to another adapter.
    library = next(one for one in LIBRARIES if one.name == "urllib3")
    certificate = honest.issue_cert("proxy.test")
    own = PublicKeyPins((leaf_pin(certificate), leaf_pin(world.backup)), max_age=60)
    with Proxy(certificate, headers=(("Public-Key-Pins", str(own)), ("Connection", "close"))) as proxy:
        assert visit(world, library, "http://plain.test/", proxy=proxy.url) == [200]
    assert len(world.store) == 0
