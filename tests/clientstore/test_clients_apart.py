"""Options of single libraries that could avoid the pins: no verification, other names, the end of a process."""

from __future__ import annotations

import asyncio
import gc
import http.client
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import trustme

from dynpin import PinValidationError, PublicKeyPins, UnenforceableContext
from dynpin.clientstore import PinStore, ReportQueue, enforce, note_response, peer_of, pin_violation
from dynpin.clientstore.aiohttp import pinned_session
from dynpin.clientstore.http_client import PinnedHTTPSConnection, PinnedHTTPSHandler
from dynpin.clientstore.httpx import PinnedAsyncClient, PinnedAsyncTransport, PinnedClient, PinnedTransport
from dynpin.clientstore.httpx2 import PinnedAsyncTransport as PinnedAsyncTransport2
from dynpin.clientstore.httpx2 import PinnedClient as PinnedClient2
from dynpin.clientstore.httpx2 import PinnedTransport as PinnedTransport2
from dynpin.clientstore.requests import PinnedAdapter, PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager

from .apart import assert_unheard, every_httpx, run
from .inbox import Inbox
from .opened import files_left_open, open_files
from .world import HOST, World, leaf_pin

# -- verify=False and similar options ---------------------------------------------------------------------------------


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
    """The site shows a certificate for another name, and the client lets TLS verify that name."""
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
    # The pool would use the connection for the URL's host, and send later requests over it.
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
def test_httpx_sni_hostname_of_the_same_host_is_accepted(
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


# -- the end of a process ---------------------------------------------------------------------------------------------


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
    arguments = [str(world.folder / "pins"), str(world.roots_file()), world.attacker.url(HOST)]
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


def test_a_connection_that_was_not_enforced_is_ignored_with_the_reason(world: World) -> None:
    for connection, kind in ((None, "NoneType"), (world, "clientstore.world.World")):
        noting = note_response(world.store, HOST, connection, [str(world.header)])
        assert noting.outcome == "ignored"
        assert f"the TLS connection for {HOST} was not enforced: " in noting.reason
        assert kind in noting.reason
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
