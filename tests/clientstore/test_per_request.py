"""An option of one request or pool affects only that one; the next one is as in a new client."""

from __future__ import annotations

import gc
import hashlib
import inspect
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import urllib3
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import SSLError

from dynpin import UnenforceableContext
from dynpin.clientstore import pin_violation
from dynpin.clientstore.requests import PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager

from ..keys import private_pem
from .sites import Proxy, Site
from .world import HOST, World, leaf_pin

OTHER = "other.test"

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@dataclass
class Ground:
    """The pinned site of `world`, another host without pins, and one that asks for client certificates."""

    world: World
    other: Site
    mutual: Site
    roots: str
    client: str

    def options_of_a_pool(self) -> dict[str, dict[str, Any]]:
        pem = self.world.stolen_name.cert_chain_pems[0].bytes().decode()
        return {
            "unverified": {"cert_reqs": "CERT_NONE"},
            "optional": {"cert_reqs": "CERT_OPTIONAL"},
            "ca_certs": {"ca_certs": self.roots},
            "ca_cert_data": {"ca_cert_data": Path(self.roots).read_text()},
            "ca_cert_dir": {"ca_cert_dir": str(self.world.folder)},
            "cert_file": {"cert_file": self.client},
            "assert_hostname": {"assert_hostname": "elsewhere.test"},
            "assert_hostname=False": {"assert_hostname": False},
            "assert_fingerprint": {"assert_fingerprint": hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()},
            "server_hostname": {"server_hostname": OTHER},
            "version": {"ssl_maximum_version": ssl.TLSVersion.TLSv1_2},
            "context": {"ssl_context": self.world.plain_context()},
        }


@pytest.fixture
def ground(world: World, honest: trustme.CA) -> Iterator[Ground]:
    world.pin_site()
    roots, client = world.roots_file(), world.folder / "client.pem"
    honest.issue_cert("client@bank.test").private_key_and_cert_chain_pem.write_to_path(str(client))
    with (
        Site(honest.issue_cert(OTHER)) as other,
        Site(world.certificate, client_ca=honest.cert_pem.bytes()) as mutual,
    ):
        yield Ground(world, other, mutual, str(roots), str(client))


def looks(context: ssl.SSLContext | None) -> object:
    if context is None:
        return None
    versions = context.minimum_version, context.maximum_version
    roots = sorted(context.get_ca_certs(binary_form=True))  # OpenSSL sorts them when it first looks one up
    return context.verify_mode, context.check_hostname, context.options, versions, roots


def assert_as_new(ground: Ground, get: Callable[[str], int]) -> None:
    """The pinned host is reached, its attacker is not, and a host that asks gets no client certificate."""
    world = ground.world
    assert get(world.site.url(HOST)) == 200
    with pytest.raises((urllib3.exceptions.HTTPError, requests.exceptions.SSLError)) as caught:
        get(world.attacker.url(HOST))
    assert pin_violation(caught.value) is not None
    caught.value.__traceback__ = None
    with pytest.raises((urllib3.exceptions.HTTPError, requests.exceptions.RequestException)):
        get(ground.mutual.url(HOST))
    gc.collect()
    world.attacker.wait_idle()
    assert (world.attacker.application_bytes, ground.mutual.handshakes) == (0, 0)


OPTIONS = (
    *("unverified", "optional", "ca_certs", "ca_cert_data", "ca_cert_dir", "cert_file", "assert_hostname"),
    *("assert_hostname=False", "assert_fingerprint", "server_hostname", "version", "context"),
)
REFUSED = ("assert_hostname", "assert_hostname=False", "assert_fingerprint")
# Options that would change the caller's own context; without one, they get a context beside the manager's roots.
OF_A_SHARED_CONTEXT = {
    True: ("unverified", "optional", "ca_certs", "ca_cert_data", "ca_cert_dir", "cert_file", "version"),
    False: ("context",),
}


@pytest.mark.parametrize("own", [False, True], ids=["made", "own"])
@pytest.mark.parametrize("option", OPTIONS)
def test_urllib3_options_of_one_pool(ground: Ground, option: str, own: bool) -> None:
    context = ground.world.plain_context() if own else None
    ways: dict[str, Any] = {"ssl_context": context} if own else {"ca_certs": ground.roots}
    with pinned_pool_manager(ground.world.store, retries=False, **ways) as manager:
        assert manager.request("GET", ground.other.url(OTHER)).status == 200
        before = looks(context)
        options = ground.options_of_a_pool()[option]
        pool = manager.connection_from_host(OTHER, ground.other.port, scheme="https", pool_kwargs=options)
        refused = UnenforceableContext if option in REFUSED else TypeError
        if option in (*REFUSED, *OF_A_SHARED_CONTEXT[own]):
            with pytest.raises(refused):
                pool.request("GET", "/")
        else:
            assert pool.request("GET", "/").status == 200
        assert looks(context) == before
        assert_as_new(ground, lambda url: manager.request("GET", url).status)
        assert looks(context) == before


@pytest.mark.filterwarnings("ignore:HTTPSConnection.set_cert:FutureWarning")
@pytest.mark.parametrize("own", [False, True], ids=["made", "own"])
@pytest.mark.parametrize("option", [*OPTIONS[:4], *OPTIONS[5:9]])
def test_urllib3_options_set_on_one_connection(ground: Ground, option: str, own: bool) -> None:
    context = ground.world.plain_context() if own else None
    ways: dict[str, Any] = {"ssl_context": context} if own else {"ca_certs": ground.roots}
    with pinned_pool_manager(ground.world.store, retries=False, **ways) as manager:
        before, pool = looks(context), manager.connection_from_host(OTHER, ground.other.port, scheme="https")
        connection: Any = pool.ConnectionCls(OTHER, port=ground.other.port, **ways)
        roots: dict[str, Any] = {} if own else ways  # set_cert() forgets the earlier ones
        connection.set_cert(**{**roots, **ground.options_of_a_pool()[option]})
        if option in REFUSED or own:
            with pytest.raises(UnenforceableContext if option in REFUSED else TypeError):
                connection.request("GET", "/")
        else:
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
        connection.close()
        assert looks(context) == before
        assert_as_new(ground, lambda url: manager.request("GET", url).status)


def test_urllib3_the_class_of_a_connection_can_be_looked_at(ground: Ground) -> None:
    with pinned_pool_manager(ground.world.store) as manager:
        made: Any = manager.connection_from_host(OTHER, scheme="https")
        looked_at = dict(inspect.getmembers(made.ConnectionCls))
    assert (looked_at["ca_certs"], looked_at["cert_reqs"]) == (None, HTTPSConnection.cert_reqs)


OPTIONS_OF_A_REQUEST: dict[str, Callable[[Ground], dict[str, Any]]] = {
    "verify=False": lambda ground: {"verify": False},
    "verify=bundle": lambda ground: {"verify": ground.roots},
    "verify=Path": lambda ground: {"verify": Path(ground.roots)},
    "cert": lambda ground: {"verify": ground.roots, "cert": ground.client},
    "Host": lambda ground: {"verify": ground.roots, "headers": {"Host": "elsewhere.test"}},
}


@pytest.mark.parametrize("own", [False, True], ids=["made", "own"])
@pytest.mark.parametrize("option", OPTIONS_OF_A_REQUEST)
def test_requests_options_of_one_request(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, option: str, own: bool
) -> None:
    context = ground.world.plain_context() if own else None
    with PinnedSession(ground.world.store, context=context) as session:
        before, options = looks(context), OPTIONS_OF_A_REQUEST[option](ground)
        if own and option != "verify=False":
            with pytest.raises(TypeError, match="cert=" if option == "cert" else "verify="):
                session.get(ground.other.url(OTHER), **options)
        else:
            assert session.get(ground.other.url(OTHER), **options).status_code == 200
        assert looks(context) == before
        if not own:
            with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
                session.get(ground.other.url(OTHER))  # requests' own roots, as in a new session
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", ground.roots)
        assert_as_new(ground, lambda url: session.get(url).status_code)
        assert looks(context) == before


def test_requests_its_own_roots_count_by_default(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", ground.roots)
    with PinnedSession(ground.world.store) as session:
        assert session.get(ground.other.url(OTHER)).status_code == 200


def test_requests_a_bundle_of_the_environment_breaks_no_session_with_a_context(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = ground.world.folder / "elsewhere.pem"
    elsewhere.write_bytes(trustme.CA().cert_pem.bytes())
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        with (
            monkeypatch.context() as patch,
            PinnedSession(ground.world.store, context=ground.world.plain_context()) as session,
        ):
            patch.setenv(name, str(elsewhere))
            assert_as_new(ground, lambda url: session.get(url).status_code)
            with pytest.raises(TypeError, match="load_verify_locations"):
                session.get(ground.world.site.url(HOST), verify=ground.roots)


def test_urllib3_a_renewed_client_certificate_counts_from_the_next_connection_on(ground: Ground) -> None:
    world, client = ground.world, Path(ground.client)
    elsewhere = trustme.CA().issue_cert("client@elsewhere.test").private_key_and_cert_chain_pem.bytes()
    renewed = client.read_bytes()
    client.write_bytes(elsewhere)
    with pinned_pool_manager(world.store, ca_certs=ground.roots, cert_file=ground.client, retries=False) as manager:
        with pytest.raises(urllib3.exceptions.HTTPError):
            manager.request("GET", ground.mutual.url(HOST))
        client.write_bytes(renewed)
        assert manager.request("GET", ground.mutual.url(HOST)).status == 200


def test_urllib3_an_encrypted_key_without_a_password_asks_nobody(ground: Ground) -> None:
    encrypted = private_pem("p-256", encryption=BestAvailableEncryption(b"x"))
    Path(ground.client).write_bytes(encrypted + ground.world.certificate.cert_chain_pems[0].bytes())
    with (
        pinned_pool_manager(ground.world.store, cert_file=ground.client, retries=False) as manager,
        pytest.raises(SSLError, match="password is required"),
    ):
        manager.request("GET", ground.other.url(OTHER))


@pytest.mark.parametrize("own", [False, True], ids=["made", "own"])
def test_an_https_proxy_sees_no_client_certificate_and_is_checked_for_http_urls_too(ground: Ground, own: bool) -> None:
    world = ground.world
    context = world.plain_context()
    if own:
        context.load_cert_chain(ground.client)
    ways: dict[str, Any] = {} if own else {"verify": ground.roots, "cert": ground.client}
    with (
        Proxy(world.honest.issue_cert("proxy.test")) as proxy,
        PinnedSession(world.store, context=context if own else None) as session,
    ):
        proxies = {"http": proxy.url, "https": proxy.url}
        assert session.get("http://plain.test/", proxies=proxies, **ways).status_code == 200
        assert session.get(ground.mutual.url(HOST), proxies=proxies, **ways).status_code == 200
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        requests_before = proxy.requests
        for url in ("http://plain.test/", ground.mutual.url(HOST)):
            session.close()
            with pytest.raises(requests.exceptions.RequestException) as caught:
                session.get(url, proxies=proxies, **ways)
            assert "proxy.test shows none of its pinned keys" in str(pin_violation(caught.value))
        session.mount("http://", requests.adapters.HTTPAdapter())
        with pytest.raises(UnenforceableContext, match="mount a PinnedAdapter for http://"):
            session.get("http://plain.test/", proxies=proxies)
        assert proxy.requests == requests_before
