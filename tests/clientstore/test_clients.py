"""Every client library with its adapter: noted on first use, enforced from then on, refused with nothing sent."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote

import pytest
import trustme

from dynpin import PublicKeyPins, Report
from dynpin.clientstore import PinStore, pin_violation
from dynpin.lab.loopback import LoopbackServer

from ..clock import Clock
from .inbox import Inbox
from .libraries import LIBRARIES, Library, every_library, pins_of, refused, visit
from .sites import HTTP2Site, Site
from .world import HOST, World, leaf_pin

# -- noted, enforced, refused -----------------------------------------------------------------------------------------


@every_library
def test_noted_on_first_use_then_enforced_from_the_disk(world: World, library: Library) -> None:
    assert visit(world, library, world.site.url(HOST)) == [200]
    assert pins_of(world.store) == world.header.pins
    world.store.close()
    with PinStore(world.folder / "pins", clock=world.store.clock) as world.store:
        assert visit(world, library, world.site.url(HOST)) == [200]
        violation = refused(world, library, world.attacker.url(HOST))
    assert violation.report is not None
    assert (violation.report.hostname, violation.report.port) == (HOST, world.attacker.port)
    assert violation.report.known_pins == world.header.pins


@every_library
def test_without_a_pin_the_attacker_hears_the_request_and_pins_nothing_for_others(
    world: World, library: Library
) -> None:
    # What makes the zero above mean something.
    assert visit(world, library, world.attacker.url(HOST)) == [200]
    world.attacker.wait_idle()
    assert b"GET / HTTP/1.1" in world.attacker.received
    assert len(world.store) == 0


@every_library
def test_redirects_are_noted_for_each_host_on_the_way(world: World, library: Library, honest: trustme.CA) -> None:
    certificate = honest.issue_cert("shop.test")
    pins = (leaf_pin(certificate), leaf_pin(world.backup))
    with Site(certificate, headers=[("Public-Key-Pins", str(PublicKeyPins(pins, max_age=60)))]) as shop:
        path = "/to/" + quote(shop.url("shop.test"), safe="")
        found = visit(world, library, world.site.url(HOST, path))
        assert found == ([200] if library.redirects else [302])
    assert pins_of(world.store) == world.header.pins
    assert pins_of(world.store, "shop.test") == (pins if library.redirects else ())


@every_library
def test_a_redirect_to_the_attacker_is_refused(world: World, library: Library) -> None:
    if not library.redirects:
        pytest.skip(f"{library} follows no redirect")
    # One client, one pool: the site's connection is of no use to the attacker's port.
    path = "/to/" + quote(world.attacker.url(HOST), safe="")
    violation = refused(world, library, world.site.url(HOST, path))
    assert violation.report is not None
    assert violation.report.port == world.attacker.port


@pytest.mark.parametrize("library", [library for library in LIBRARIES if library.http2], ids=str)
def test_http_2_is_noted_and_enforced(world: World, library: Library) -> None:
    assert library.http2 is not None
    with (
        HTTP2Site(world.certificate, headers=world.site.headers) as site,
        HTTP2Site(world.stolen_name) as world.attacker,
    ):
        assert library.http2(world.store, world.plain_context(), [site.url(HOST)] * 2) == [200, 200]
        assert (site.connections, pins_of(world.store)) == (1, world.header.pins)
        with pytest.raises(library.error) as caught:
            library.http2(world.store, world.plain_context(), [world.attacker.url(HOST)])
        assert pin_violation(caught.value) is not None
        world.attacker.wait_idle()
        assert world.attacker.application_bytes == 0


# -- what a response says ---------------------------------------------------------------------------------------------


@every_library
def test_of_several_header_fields_the_first_counts(world: World, library: Library) -> None:
    other = PublicKeyPins((leaf_pin(world.certificate), leaf_pin(world.stolen_name)), max_age=60)
    world.site.headers = [("Public-Key-Pins", str(world.header)), ("Public-Key-Pins", str(other))]
    visit(world, library, world.site.url(HOST))
    assert pins_of(world.store) == world.header.pins


@every_library
def test_a_malformed_first_field_is_not_repaired_by_the_second(world: World, library: Library) -> None:
    world.site.headers = [("Public-Key-Pins", "max-age"), ("Public-Key-Pins", str(world.header))]
    visit(world, library, world.site.url(HOST))
    assert pins_of(world.store) == ()


@every_library
@pytest.mark.parametrize("kind", ["HEAD", "204", "empty", "close"])
def test_responses_without_a_body_and_closed_connections_are_noted(world: World, library: Library, kind: str) -> None:
    if kind == "empty":
        world.site.body = b""
    if kind == "close":
        world.site.headers.append(("Connection", "close"))
    url = world.site.url(HOST, "/204" if kind == "204" else "/")
    assert visit(world, library, url, method="HEAD" if kind == "HEAD" else "GET") == [204 if kind == "204" else 200]
    assert pins_of(world.store) == world.header.pins


class _Reports:
    def __init__(self) -> None:
        self.added: list[tuple[Report, str]] = []

    def add(self, report: Report, report_uri: str) -> None:
        self.added.append((report, report_uri))


@every_library
def test_report_only_is_evaluated_and_reported_and_never_cached(world: World, library: Library) -> None:
    pins = (leaf_pin(world.stolen_name), leaf_pin(world.backup))
    policy = PublicKeyPins(pins, max_age=None, report_uri="https://reports.test/r", report_only=True)
    world.site.headers = [("Public-Key-Pins-Report-Only", str(policy))]
    reports = _Reports()
    assert visit(world, library, world.site.url(HOST), reporter=reports) == [200]
    ((report, report_uri),) = reports.added
    assert report_uri == "https://reports.test/r"
    assert (report.hostname, report.port, report.known_pins) == (HOST, world.site.port, pins)
    assert len(world.store) == 0


@every_library
def test_a_violation_is_reported_with_the_port_of_the_request(world: World, library: Library) -> None:
    world.store.pin(HOST, world.header.pins, report_uri="https://reports.test/r")
    reports = _Reports()
    refused(world, library, world.attacker.url(HOST), reporter=reports)
    ((report, _),) = reports.added
    assert (report.hostname, report.port) == (HOST, world.attacker.port)


@every_library
def test_the_report_of_a_violation_is_delivered(world: World, library: Library) -> None:
    with Inbox() as inbox:
        world.store.pin(HOST, world.header.pins, report_uri=f"http://reports.test:{inbox.port}/hpkp")
        refused(world, library, world.attacker.url(HOST))
        report = inbox.next_report()
    assert (report["hostname"], report["port"]) == (HOST, world.attacker.port)


class _PlainHandler(BaseHTTPRequestHandler):
    fields: tuple[str, str]

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header(*self.fields)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def plain_site(world: World) -> Iterator[str]:
    handler = type("Handler", (_PlainHandler,), {"fields": ("Public-Key-Pins", str(world.header))})
    with LoopbackServer(handler) as server:
        yield f"http://{HOST}:{server.server_port}/"


@pytest.mark.parametrize("library", [one for one in LIBRARIES if one.plain_http], ids=str)
def test_plain_http_notes_nothing(world: World, library: Library, plain_site: str) -> None:
    assert visit(world, library, plain_site) == [200]
    assert len(world.store) == 0


# -- contexts ---------------------------------------------------------------------------------------------------------


@every_library
def test_client_certificates_go_along(world: World, library: Library, honest: trustme.CA) -> None:
    with Site(world.certificate, headers=world.site.headers, client_ca=honest.cert_pem.bytes()) as site:
        context = world.plain_context()
        honest.issue_cert("client@bank.test").configure_cert(context)
        assert library.visit(world.store, context, [site.url(HOST)]) == [200]
    assert pins_of(world.store) == world.header.pins


@every_library
def test_truststore_contexts_on_linux(world: World, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    truststore = pytest.importorskip("truststore")
    monkeypatch.setenv("SSL_CERT_FILE", str(world.roots_file()))
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert library.visit(world.store, context, [world.site.url(HOST)]) == [200]
    assert pins_of(world.store) == world.header.pins
    with pytest.raises(library.error) as caught:
        library.visit(world.store, context, [world.attacker.url(HOST)])
    assert pin_violation(caught.value) is not None
    gc.collect()
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


# -- pools ------------------------------------------------------------------------------------------------------------
# Pins are checked at the handshake. A pooled connection keeps what its handshake proved; a new one is checked again.


@every_library
def test_a_connection_that_is_kept_alive_notes_each_response(world: World, library: Library) -> None:
    renewed = PublicKeyPins(world.header.pins, max_age=7200, include_subdomains=True)

    def change() -> None:
        world.site.headers = [("Public-Key-Pins", str(renewed))]

    assert visit(world, library, *[world.site.url(HOST)] * 2, between=change) == [200, 200]
    known = world.store.known_host(HOST)
    assert known is not None
    assert known.include_subdomains
    assert world.site.connections == (1 if library.pools else 2)


def _pin_another_key(world: World, clock: Clock) -> None:
    world.store.pin(HOST, [leaf_pin(world.backup)])


def _let_the_pins_expire(world: World, clock: Clock) -> None:
    clock.forward(3601)
    world.store.pin(HOST, [leaf_pin(world.backup)], expires_at=clock.now + 60)


@pytest.mark.parametrize("library", [one for one in LIBRARIES if one.pools], ids=str)
@pytest.mark.parametrize("happen", [_pin_another_key, _let_the_pins_expire])
def test_a_pooled_connection_outlives_a_change_of_pins_and_a_new_one_does_not(
    world: World, library: Library, clock: Clock, happen: Callable[[World, Clock], None]
) -> None:
    found = visit(world, library, *[world.site.url(HOST)] * 2, between=lambda: happen(world, clock))
    assert (found, world.site.connections) == ([200, 200], 1)
    # Its second response fails Pin Validation against what is pinned now, so it changes nothing.
    assert pins_of(world.store) == (leaf_pin(world.backup),)
    with pytest.raises(library.error) as caught:
        visit(world, library, world.site.url(HOST))
    assert pin_violation(caught.value) is not None


@every_library
def test_after_the_pins_expire_another_key_is_a_first_use(world: World, library: Library, clock: Clock) -> None:
    visit(world, library, world.site.url(HOST))
    refused(world, library, world.attacker.url(HOST))
    clock.forward(3601)
    assert visit(world, library, world.attacker.url(HOST)) == [200]


@every_library
def test_a_new_connection_of_the_same_client_is_decided_anew(world: World, library: Library) -> None:
    world.site.headers.append(("Connection", "close"))
    read: list[int] = []

    def change() -> None:
        world.site.show(world.stolen_name)
        read.append(world.site.application_bytes)

    with pytest.raises(library.error) as caught:
        visit(world, library, *[world.site.url(HOST)] * 2, between=change)
    assert pin_violation(caught.value) is not None
    caught.value.__traceback__ = None
    gc.collect()
    world.site.wait_idle()
    assert read == [world.site.application_bytes]
