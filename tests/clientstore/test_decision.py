"""The one decision: names that differ, sessions of other handshakes, the audit, renegotiation, and messages."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from dynpin import Pin, PinValidationError
from dynpin.clientstore import PinStore, enforce, note_response, peer_of
from dynpin.lab.network import TLSServer, loopback_names
from dynpin.report import Report

from .world import HOST, World, leaf_pin

REQUEST = b"GET / HTTP/1.1\r\nHost: bank.test\r\nAuthorization: Bearer secret\r\n\r\n"
OTHER = Pin(bytes([5]) * 32)


class Kept:
    """A reporter that keeps its reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def add(self, report: Report, report_uri: str) -> None:
        self.reports.append(report)


# -- sessions (RFC 5077, RFC 8446 §2.2) -------------------------------------------------------------------------------


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS1.2", "TLS1.3"])
def versions(request: pytest.FixtureRequest, world: World) -> None:
    for server in (world.site, world.attacker):
        server.maximum_version = request.param
    world.site.show(world.certificate)
    world.attacker.show(world.stolen_name)


def talk(
    world: World, server: TLSServer, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    tls = context.wrap_socket(world.connect(server), server_hostname=HOST, session=session)
    tls.sendall(REQUEST)
    tls.recv(4096)  # TLS 1.3 sends its tickets with the first data
    return tls


@pytest.mark.usefixtures("versions")
def test_the_session_of_an_attacker_at_first_use_proves_nothing(world: World) -> None:
    context = world.context()
    with talk(world, world.attacker, context) as tls:
        hostile = tls.session
    assert hostile is not None
    world.pin_site()
    with talk(world, world.site, context) as tls:  # what the genuine server has proved is remembered
        assert tls.session is not None
    heard = world.attacker.application_bytes
    with pytest.raises(PinValidationError, match="shows none of its pinned keys"):
        talk(world, world.attacker, context, hostile)
    assert world.attacker.application_bytes == heard


@pytest.mark.usefixtures("versions")
def test_a_proof_belongs_to_the_session_object_and_not_to_its_id(world: World) -> None:
    """The server chooses the id: an attacker may use the id of the genuine server's session."""
    context = world.context()
    with talk(world, world.site, context) as tls:
        known = tls.session
        same_id = tls._sslobj.session  # type: ignore[attr-defined] # another object, past the guard
    assert known is not None
    assert known.id == same_id.id
    world.pin_site()
    with talk(world, world.site, context, known) as tls:
        assert tls.session_reused
    with pytest.raises(PinValidationError, match="did not see the handshake that made the session"):
        talk(world, world.site, context, same_id)


@pytest.mark.usefixtures("versions")
def test_a_session_set_before_the_handshake_is_the_one_that_counts(world: World) -> None:
    context = world.context()
    with talk(world, world.attacker, context) as tls:
        hostile = tls.session
    with talk(world, world.site, context) as tls:
        genuine = tls.session
    world.pin_site()
    for session, refused in ((genuine, False), (hostile, True)):
        made = context.wrap_socket(socket.socket(), server_hostname=HOST, do_handshake_on_connect=False)
        with made:
            made.session = session
            made.connect(("127.0.0.1", (world.attacker if refused else world.site).port))
            if refused:
                with pytest.raises(PinValidationError):
                    made.do_handshake()
            else:
                made.do_handshake()
                assert made.session_reused


# -- names (RFC 7469 §2.6, RFC 6125) ----------------------------------------------------------------------------------


@pytest.fixture
def sharp() -> Iterator[tuple[trustme.CA, TLSServer]]:
    """faß.test is xn--fa-hia.test today, but ssl writes fass.test, which belongs to somebody else."""
    authority = trustme.CA()
    with loopback_names(), TLSServer(authority.issue_cert("fass.test")) as attacker:
        yield authority, attacker


def ways(context: ssl.SSLContext, host: str, port: int) -> dict[str, Callable[[], object]]:
    def by_socket() -> None:
        raw = socket.create_connection(("127.0.0.1", port))
        with raw, context.wrap_socket(raw, server_hostname=host) as tls:
            tls.sendall(REQUEST)

    def by_object() -> None:
        async def run() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
            writer.write(REQUEST)
            await writer.drain()
            writer.transport.abort()

        asyncio.run(run())

    return {"socket": by_socket, "asyncio": by_object}


@pytest.mark.parametrize("pinned", ["faß.test", "fass.test", None])
@pytest.mark.parametrize("way", ["socket", "asyncio"])
def test_a_name_that_tls_writes_in_another_way_is_checked_for_both_names(
    sharp: tuple[trustme.CA, TLSServer], tmp_path: Path, way: str, pinned: str | None
) -> None:
    authority, attacker = sharp
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    with PinStore(tmp_path / "pins") as store:
        if pinned is not None:
            store.pin(pinned, [OTHER])
        enforce(context, store)
        if pinned != "fass.test":
            ways(context, "fass.test", attacker.port)[way]()  # that the chain has passed for TLS's name is remembered
        attacker.wait_idle()
        heard = attacker.application_bytes
        connect = ways(context, "faß.test", attacker.port)[way]
        if pinned is None:
            connect()
            attacker.wait_idle()
            assert attacker.application_bytes == heard + len(REQUEST)
            return
        with pytest.raises(
            PinValidationError, match=r"has verified fass\.test and the program asked for xn--fa-hia\.test"
        ):
            connect()
    attacker.wait_idle()
    assert attacker.application_bytes == heard


@pytest.mark.parametrize("way", ["socket", "asyncio"])
def test_a_name_without_a_canonical_form_is_the_one_that_tls_writes(world: World, way: str) -> None:
    """Such as that of an emoji, or one with a joiner: IDNA 2003 writes it, and IDNA 2008 has no form of it."""
    connect = ways(world.context(), "ba\u200dnk.test", world.attacker.port)[way]
    connect()
    world.pin_site()
    with pytest.raises(PinValidationError, match=r"asked for 'ba\\u200dnk\.test'.* in its ASCII form: bank\.test$"):
        connect()
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == len(REQUEST)


def test_a_request_by_another_name_is_noted_for_neither_name(
    sharp: tuple[trustme.CA, TLSServer], tmp_path: Path
) -> None:
    authority, attacker = sharp
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    with PinStore(tmp_path / "pins") as store, socket.create_connection(("127.0.0.1", attacker.port)) as raw:
        with enforce(context, store).wrap_socket(raw, server_hostname="faß.test") as tls:
            for host in ("faß.test", "fass.test"):
                header = f'pin-sha256="{OTHER}"; max-age=1000; pin-sha256="{leaf_pin_of(tls)}"'
                assert note_response(store, host, tls, [header]).outcome == "ignored"
        assert store.hosts() == []


def leaf_pin_of(tls: ssl.SSLSocket) -> Pin:
    return Pin.from_certificate(tls.getpeercert(binary_form=True) or b"")


# -- the audit mode ---------------------------------------------------------------------------------------------------


def test_the_audit_lets_through_tells_of_it_and_notes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.store.pin(HOST, world.header.pins, report_uri="https://report.test/")
    violations: list[PinValidationError] = []
    reporter = Kept()
    context = enforce(
        world.plain_context(), world.store, on_mismatch="report", on_violation=violations.append, reporter=reporter
    )
    for _ in range(2):  # a failed handshake is not remembered as passed
        with talk(world, world.attacker, context) as tls:
            peer = peer_of(tls)
            assert peer is not None
            assert peer.pins == ()
            stolen = f'pin-sha256="{leaf_pin(world.stolen_name)}"; pin-sha256="{OTHER}"; max-age=1000'
            world.store.forget(HOST)
            assert note_response(world.store, HOST, tls, [stolen]).outcome == "ignored"
            world.store.pin(HOST, world.header.pins, report_uri="https://report.test/")
    assert len(violations) == len(reporter.reports) == 2
    assert "shows none of its pinned keys" in caplog.text
    assert "This is an audit: the request is sent all the same." in str(violations[0])
    assert "No request was sent" not in caplog.text
    with talk(world, world.site, context) as tls:
        peer = peer_of(tls)
        assert peer is not None
        assert peer.pins[0] == leaf_pin(world.certificate)


@pytest.mark.parametrize("fault", ["no verification", "no name", "another name", "no store"])
def test_the_audit_refuses_nothing_whatever_is_the_matter(world: World, fault: str) -> None:
    world.pin_site()
    context = enforce(world.plain_context(), world.store, on_mismatch="report")
    name: str | None = HOST
    if fault in ("no verification", "no name"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if fault == "no name":
        name = None
    if fault == "another name":
        world.store.pin("fass.test", [OTHER])
        world.site.show(world.honest.issue_cert("fass.test"))
        name = "faß.test"
    if fault == "no store":
        assert isinstance(world.store.path, Path)
        world.store.path.unlink()
    with context.wrap_socket(world.connect(world.site), server_hostname=name) as tls:
        tls.sendall(REQUEST)
        assert tls.recv(100).startswith(b"HTTP/1.1 200")
        peer = peer_of(tls)
        assert peer is not None
        assert peer.pins == ()


def test_an_unknown_option_is_refused_by_name(world: World) -> None:
    with pytest.raises(TypeError, match="there is no option on_mismach; there are on_mismatch"):
        enforce(world.plain_context(), world.store, on_mismach="report")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("on_mismatch", "audit"),
        ("private_roots", "bypas"),
        ("private_roots", True),
        ("reporter", "none"),
        ("reporter", "Off"),
        ("reporter", "same_domain"),
        ("allow_renegotiation", "no"),
        ("allow_renegotiation", 1),
    ],
)
def test_a_misspelt_word_does_not_mean_the_opposite(world: World, option: str, value: object) -> None:
    options: Any = {option: value}
    with pytest.raises(ValueError, match=f"{option} is .* or .*, not {value!r}"):
        enforce(world.plain_context(), world.store, **options)


# -- messages ---------------------------------------------------------------------------------------------------------


def test_no_message_says_that_nothing_was_sent_if_tls_has_shown_a_certificate(world: World) -> None:
    """With client certificates the other side has seen them before the pins are checked."""
    world.pin_site()
    seen: list[object] = []
    client = world.honest.issue_cert("client.test")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    world.stolen_name.configure_cert(server)
    world.honest.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    server.sslsocket_class = type("Seeing", (ssl.SSLSocket,), {})
    world.attacker.use(server)
    context = world.context()
    client.configure_cert(context)
    with pytest.raises(PinValidationError) as caught:
        talk(world, world.attacker, context)
    assert "No request was sent." in str(caught.value)
    assert "Nothing was sent" not in str(caught.value)
    assert seen == []


def test_an_event_loops_thread_waits_for_no_report(world: World) -> None:
    """While another process holds the write lock, the refusal comes at once, and the report is written later."""
    world.store.pin(HOST, world.header.pins, report_uri="http://127.0.0.1:1/")
    context = enforce(world.plain_context(), world.store, reporter="all")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with contextlib.closing(sqlite3.connect(world.store.path, isolation_level=None)) as other:
        with world.connect(world.attacker) as raw:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(PinValidationError):
                shake_hands(made, raw, incoming, outgoing)
            other.execute("ROLLBACK")
        world.store.database.write(lambda _: None)
        assert other.execute("SELECT host FROM reports").fetchall() == [(HOST,)]


def shake_hands(made: ssl.SSLObject, raw: socket.socket, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
    while True:
        try:
            made.do_handshake()
        except ssl.SSLWantReadError:
            raw.sendall(outgoing.read())
            incoming.write(raw.recv(65_536))
        else:
            return


def test_a_reporter_that_fails_on_a_report_only_policy_keeps_no_pins_from_being_noted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def add(self, report: Report, report_uri: str) -> None:
            raise RuntimeError("a reporter of the user's own")

    context = enforce(world.plain_context(), world.store, reporter=Failing())
    with talk(world, world.site, context) as tls:
        policy = f'pin-sha256="{OTHER}"; report-uri="https://report.test/"'
        noting = note_response(world.store, HOST, tls, [str(world.header)], [policy])
    assert noting.outcome == "noted"
    assert "could not be evaluated" in caplog.text


def test_a_header_is_noted_for_a_subdomain_of_certificate_pins(world: World) -> None:
    import hashlib

    der = ssl.PEM_cert_to_DER_cert(world.certificate.cert_chain_pems[0].bytes().decode())
    world.store.pin("test", certificates=[hashlib.sha256(der).digest()], include_subdomains=True)
    with talk(world, world.site, world.context()) as tls:
        assert note_response(world.store, HOST, tls, [str(world.header)]).outcome == "noted"


# -- renegotiation (RFC 5746) -----------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: apt-get install openssl")
@pytest.mark.parametrize("allowed", [False, True])
def test_a_server_that_renegotiates(world: World, tmp_path: Path, allowed: bool) -> None:
    pem = tmp_path / "site.pem"
    pem.write_bytes(world.certificate.private_key_and_cert_chain_pem.bytes())
    port = free_port()
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pem, "-key", pem, "-tls1_2", "-naccept", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        while b"ACCEPT" not in server.stdout.readline():
            pass
        context = enforce(world.plain_context(), world.store, allow_renegotiation=allowed)
        raw = socket.create_connection(("127.0.0.1", port), timeout=60)
        with raw, context.wrap_socket(raw, server_hostname=HOST) as tls:
            tls.sendall(b"hello\n")
            while b"hello" not in server.stdout.readline():
                pass
            server.stdin.write(b"R\n")  # renegotiate
            server.stdin.flush()
            if allowed:
                tls.settimeout(1)
                with contextlib.suppress(TimeoutError):
                    tls.recv(100)
                tls.sendall(b"again\n")
                while b"again" not in server.stdout.readline():
                    pass
                return
            with pytest.raises(ssl.SSLError) as caught:
                tls.recv(100)
        assert "allow_renegotiation=True" in "".join(caught.value.__notes__)
    finally:
        server.kill()
        server.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
