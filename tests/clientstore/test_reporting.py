"""The queue of violation reports (RFC 7469 §2.1.4, §3, §5), on real sockets and files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import sqlite3
import ssl
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

import pytest
import trustme

from dynpin import KnownPinnedHost, Pin, PinValidationError, Report, StoreError
from dynpin.clientstore import PinStore, ReportQueue, enforce
from dynpin.lab.network import TLSServer, loopback_names
from dynpin.report import build_report, parse_report

from ..scenarios import BASE, Clock
from .inbox import Inbox
from .world import HOST, World

PINS = (Pin(bytes(32)), Pin(b"\x01" * 32))
HOUR, DAY = 3600.0, 86_400.0
URI = "http://report.test/hpkp"


@pytest.fixture(scope="module")
def authorities() -> tuple[trustme.CA, trustme.CA]:
    return trustme.CA(), trustme.CA()


@pytest.fixture
def world(authorities: tuple[trustme.CA, trustme.CA], tmp_path: Path, clock: Clock) -> Iterator[World]:
    honest, rogue = authorities
    certificate, backup = honest.issue_cert(HOST), honest.issue_cert(HOST)
    stolen = rogue.issue_cert(HOST)
    with (
        TLSServer(certificate) as site,
        TLSServer(stolen) as attacker,
        PinStore(tmp_path / "pins", clock=clock) as store,
    ):
        yield World(honest, rogue, certificate, backup, stolen, site, attacker, store, tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[PinStore]:
    with PinStore(tmp_path / "pins", clock=clock) as store:
        yield store


@pytest.fixture
def routes() -> Iterator[dict[str, int]]:
    routes: dict[str, int] = {}
    with loopback_names(routes):
        yield routes


@pytest.fixture
def inbox(routes: dict[str, int]) -> Iterator[Inbox]:
    with Inbox() as inbox:
        routes["report.test"] = inbox.port
        yield inbox


def a_report(host: str = HOST, *, at: float = BASE, noted: str | None = None) -> Report:
    known = KnownPinnedHost(noted or host, PINS, True, URI, at, at + DAY)
    return build_report(host=host, port=443, known_host=known, served=[], validated=[], now=at)


def by_hand(store: PinStore, **options: object) -> ReportQueue:
    return ReportQueue(store, background=False, **options)  # type: ignore[arg-type] # the options of the case


def violate(world: World, context: ssl.SSLContext) -> PinValidationError:
    with pytest.raises(PinValidationError) as caught:
        context.wrap_socket(world.connect(world.attacker), server_hostname=HOST)
    return caught.value


def outcomes(queue: ReportQueue) -> list[str]:
    return [delivery.outcome for delivery in queue.send()]


# -- taken in ---------------------------------------------------------------------------------------------------------


def test_a_violation_is_on_the_disk_when_the_error_is_raised(world: World) -> None:
    world.store.pin(HOST, world.header.pins, report_uri=URI)
    error = violate(world, enforce(world.plain_context(), world.store, reporter=by_hand(world.store)))
    with sqlite3.connect(world.store.path) as other:
        rows = other.execute("SELECT host, noted_host, report_uri, body FROM reports").fetchall()
    other.close()
    assert error.report is not None
    assert [row[:3] for row in rows] == [(HOST, HOST, URI)]
    assert parse_report(rows[0][3]).validated_chain == error.report.validated_chain


def test_the_same_report_is_queued_once_an_hour_whenever_it_happened(store: PinStore, clock: Clock) -> None:
    queue = by_hand(store)
    assert queue.add(a_report(), URI) == "queued"
    assert queue.add(a_report(at=BASE + 5), URI) == "repeated"
    assert queue.add(a_report(), "http://other.test/") == "queued"
    assert queue.add(dataclasses.replace(a_report(), port=8443), URI) == "queued"
    assert len(queue.pending()) == 3
    clock.now += HOUR + 1
    assert queue.add(a_report(at=clock.now), URI) == "repeated"  # it still waits to be sent


def test_what_was_sent_is_queued_again_after_an_hour(store: PinStore, clock: Clock, inbox: Inbox) -> None:
    queue = by_hand(store)
    for seconds, added in ((0.0, "queued"), (HOUR - 1, "repeated"), (2.0, "queued")):
        clock.now += seconds
        assert queue.add(a_report(at=clock.now), URI) == added
        queue.send()
    assert len(inbox.requests) == 2


@pytest.mark.parametrize(
    "report_uri",
    [
        f"https://{HOST}/report",
        f"http://{HOST}:8080/report",
        f"https://{HOST.upper()}./report",
        "ftp://report.test/",
        "file:///etc/passwd",
        "/relative",
        "http://",
        "http://[::1",
        "http://a..b/",
    ],
)
def test_a_report_that_must_not_or_cannot_be_sent_is_declined(store: PinStore, report_uri: str) -> None:
    queue = by_hand(store)
    assert queue.add(a_report(), report_uri) == "declined"
    assert queue.reports() == []


@pytest.mark.parametrize(
    ("mode", "report_uri", "added"),
    [
        ("all", "https://collector.example/", "queued"),
        ("off", "https://report.bank.co.uk/", "declined"),
        ("same-domain", "https://report.bank.co.uk/", "queued"),
        ("same-domain", "https://bank.co.uk/", "queued"),
        ("same-domain", "https://report.other.co.uk/", "declined"),
        ("same-domain", "https://collector.example/", "declined"),
    ],
)
def test_the_mode_says_where_reports_go(store: PinStore, mode: str, report_uri: str, added: str) -> None:
    assert by_hand(store, mode=mode).add(a_report("www.bank.co.uk"), report_uri) == added


def test_what_another_mode_has_queued_is_not_sent_against_this_one(store: PinStore, inbox: Inbox) -> None:
    by_hand(store).add(a_report("www.bank.co.uk"), URI)
    for mode in ("off", "same-domain"):
        assert by_hand(store, mode=mode).send() == []
    assert outcomes(by_hand(store)) == ["sent"]
    assert len(inbox.requests) == 1


def waiting_hosts(queue: ReportQueue) -> Counter[str]:
    return Counter(report.host for report in queue.pending())


def test_one_attacked_host_fills_its_own_share_of_the_queue_and_its_newest_stays(store: PinStore) -> None:
    queue = by_hand(store)
    queue.add(a_report("other.test"), URI)
    for port in range(1, 70):
        assert queue.add(dataclasses.replace(a_report(), port=port), URI) == "queued"
    assert waiting_hosts(queue) == {HOST: 20, "other.test": 1}
    assert [json.loads(report.body)["port"] for report in queue.pending()][1:] == list(range(50, 70))


def test_noise_of_five_domains_neither_declines_nor_delays_the_report_of_a_bank(store: PinStore, inbox: Inbox) -> None:
    queue = by_hand(store, max_per_hour=6)
    queue.add(a_report("old-bank.test"), URI)
    for number in range(200):
        for domain in range(5):
            queue.add(a_report(f"h{number}.evil{domain}.test"), URI)
    assert queue.add(a_report(), URI) == "queued"
    pending = waiting_hosts(queue)
    assert pending[HOST] == pending["old-bank.test"] == 1
    assert sum(pending.values()) == 1_000
    sent = [delivery.report.host for delivery in queue.send()]
    # The newest of each domain goes first, so both banks are among the first attempts of the hour.
    assert HOST in sent
    assert len(sent) == 6
    noisy = {host.rpartition(".evil")[2] for host in sent if "evil" in host}
    assert len(noisy) == len([host for host in sent if "evil" in host])


def test_a_full_disk_of_the_queue_does_not_hide_the_violation(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        def add(self, report: Report, report_uri: str) -> None:
            raise StoreError("the disk is full")

    world.store.pin(HOST, world.header.pins, report_uri=URI)
    assert violate(world, enforce(world.plain_context(), world.store, reporter=Full())).report is not None
    assert "could not be kept" in caplog.text


def padded(count: int, *, validated: int = 1) -> Report:
    certificates = tuple(f"-----BEGIN CERTIFICATE-----\n{n:01000}\n-----END CERTIFICATE-----\n" for n in range(count))
    return dataclasses.replace(a_report(), served_chain=certificates, validated_chain=certificates[:validated])


def test_what_a_server_sends_besides_its_chain_makes_no_report_longer_than_64_kib(store: PinStore) -> None:
    queue = by_hand(store)
    for count in (3, 1_000):
        queue.add(padded(count), URI)
    short, long = (parse_report(report.body) for report in queue.pending())
    assert short.served_chain == padded(3).served_chain
    assert long.validated_chain == padded(3).served_chain[:1]
    # As much of it as fits, from the leaf on.
    assert long.served_chain == padded(1_000).served_chain[: len(long.served_chain)]
    assert 63_000 < len(queue.pending()[1].body) <= 65_536


def test_the_validated_chain_is_reported_whole(store: PinStore) -> None:
    queue = by_hand(store)
    queue.add(padded(100, validated=80), URI)
    (kept,) = queue.pending()
    assert json.loads(kept.body)["validated-certificate-chain"] == list(padded(80).served_chain)
    assert json.loads(kept.body)["served-certificate-chain"] == []


def test_taking_a_report_to_send_reads_no_other(store: PinStore, inbox: Inbox) -> None:
    queue = by_hand(store, max_per_hour=1)
    for port in range(40):
        queue.add(dataclasses.replace(padded(60), port=port), URI)
    body = len(queue.pending()[0].body)
    tracemalloc.start()
    try:
        queue.send()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(inbox.requests) == 1
    assert peak < 40 * body / 2


# -- sent -------------------------------------------------------------------------------------------------------------


def test_it_is_posted_as_json_and_kept_as_sent(store: PinStore, clock: Clock, inbox: Inbox) -> None:
    queue = by_hand(store)
    queue.add(a_report(), URI)
    clock.now += 5
    assert outcomes(queue) == ["sent"]
    ((path, fields, body),) = inbox.requests
    assert path == "/hpkp"
    assert fields["content-type"] == "application/json"
    assert fields["user-agent"].startswith("dynpin/")
    assert parse_report(body) == parse_report(a_report().to_json())
    (kept,) = queue.reports()
    assert (kept.state, kept.sent_at, kept.attempts, kept.body) == ("sent", clock.now, 1, "")
    assert not queue.pending()
    assert not queue.send()


def test_an_answer_that_is_no_2xx_is_tried_again_ever_more_slowly_and_then_given_up(
    store: PinStore, clock: Clock, inbox: Inbox
) -> None:
    inbox.status = 503
    queue = by_hand(store)
    queue.add(a_report(), URI)
    waits: list[float] = []
    while True:
        (delivery,) = queue.send()
        assert "503" in delivery.reason
        if delivery.outcome == "given up":
            break
        (waiting,) = queue.pending()
        assert waiting.next_attempt_at is not None
        waits.append(waiting.next_attempt_at - clock.now)
        clock.now = waiting.next_attempt_at - 1
        assert queue.send() == []
        clock.now += 1
    assert waits == [60.0 * 2**n for n in range(9)] + [6 * HOUR] * 10
    assert [report.state for report in queue.reports()] == ["given up"]
    assert len(inbox.requests) == 20


def test_a_report_older_than_a_week_is_given_up(store: PinStore, clock: Clock, inbox: Inbox) -> None:
    inbox.status = 500
    queue = by_hand(store)
    queue.add(a_report(), URI)
    clock.now += 7 * DAY
    assert outcomes(queue) == ["given up"]
    assert [report.body for report in queue.reports()] == [""]


def test_a_dead_host_is_tried_again_later(store: PinStore, clock: Clock, routes: dict[str, int]) -> None:
    with Inbox() as gone:
        routes["report.test"] = gone.port
    queue = by_hand(store)
    queue.add(a_report(), URI)
    assert outcomes(queue) == ["later"]
    assert queue.pending()[0].last_error == "Connection refused"
    with Inbox() as back:
        routes["report.test"] = back.port
        assert queue.send() == []
        assert [delivery.outcome for delivery in queue.send(early=True)] == ["sent"]


def test_no_more_than_so_many_are_sent_an_hour(store: PinStore, clock: Clock, inbox: Inbox) -> None:
    queue = by_hand(store, max_per_hour=3)
    for number in range(5):
        queue.add(a_report(f"h{number}.test"), URI)
    assert outcomes(queue) == ["sent"] * 3
    assert queue.send(early=True) == []
    clock.now += HOUR
    assert outcomes(queue) == ["sent"] * 2
    assert len(inbox.requests) == 5


def test_where_none_may_be_sent_an_hour_none_is(store: PinStore, inbox: Inbox) -> None:
    queue = by_hand(store, max_per_hour=0)
    queue.add(a_report(), URI)
    assert queue.send(early=True) == []
    assert inbox.requests == []


def test_what_one_process_sends_no_other_sends_meanwhile(store: PinStore, clock: Clock, inbox: Inbox) -> None:
    by_hand(store).add(a_report(), URI)
    with PinStore(store.path, clock=clock) as second:
        meanwhile: list[object] = []
        inbox.on_post = lambda: meanwhile.append(by_hand(second).send())
        assert outcomes(by_hand(store)) == ["sent"]
    assert meanwhile == [[]]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_process_took_and_did_not_finish_is_sent_by_another(store: PinStore, clock: Clock, inbox: Inbox) -> None:
    queue = by_hand(store)
    queue.add(a_report(), URI)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's own process
        from dynpin.clientstore.reports import posting

        posting.Post.__call__ = lambda *_: os._exit(7)  # type: ignore[method-assign] # dies while it sends
        queue.send()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert queue.send() == []  # it may still be on its way
    clock.now += 301
    assert outcomes(queue) == ["sent"]


def test_redirects_are_not_followed(store: PinStore, inbox: Inbox) -> None:
    with Inbox() as elsewhere:
        inbox.status, inbox.headers = 307, [("Location", f"http://127.0.0.1:{elsewhere.port}/")]
        queue = by_hand(store)
        queue.add(a_report(), URI)
        (delivery,) = queue.send()
        assert delivery.outcome == "later"
        assert "307" in delivery.reason
        assert elsewhere.requests == []


def test_what_the_other_side_says_does_not_reach_the_terminal_raw(store: PinStore, routes: dict[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            # A queue of another test may come first.
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65_536)
                        connection.sendall(
                            b"HTTP/1.1 500 \x1b[31mred\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                        )

        thread = threading.Thread(target=answer)
        thread.start()
        routes["report.test"] = listener.getsockname()[1]
        queue = by_hand(store)
        queue.add(a_report(), URI)
        (delivery,) = queue.send()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert delivery.reason == "it answered 500 ?[31mred"


@contextlib.contextmanager
def dripping(first: bytes, then: bytes, certificate: trustme.LeafCert | None) -> Generator[int]:
    """A server that never ends what it says, and never falls silent; the port."""

    def serve() -> None:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                certificate.configure_cert(context)
                connection = stack.enter_context(context.wrap_socket(connection, server_side=True))
            connection.sendall(first)
            for _ in range(1_000):  # so that the test ends in any case
                connection.sendall(then)
                while select.select([connection], [], [], 0.05)[0]:
                    if not connection.recv(65_536):
                        return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)


@pytest.mark.parametrize(
    ("scheme", "proxied", "first", "then"),
    [
        ("http", False, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("http", False, b"HTTP/1.1 503 Busy\r\nX: ", b"a"),
        ("https", False, b"HTTP/1.1 503 Busy\r\nX: ", b"a"),
        ("https", True, b"HTTP/1.1 200 Connection established\r\nX: ", b"a"),
    ],
    ids=["status", "header", "tls", "connect"],
)
def test_a_collector_that_drips_holds_nobody_for_longer_than_three_timeouts(
    world: World,
    routes: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    proxied: bool,
    first: bytes,
    then: bytes,
) -> None:
    certificate = world.honest.issue_cert("report.test") if scheme == "https" and not proxied else None
    with dripping(first, then, certificate) as port:
        routes["report.test"] = port
        if proxied:
            monkeypatch.setenv("https_proxy", f"http://report.test:{port}")
            monkeypatch.delenv("no_proxy", raising=False)
        queue = by_hand(world.store, timeout=1.0, context=world.plain_context())
        queue.add(a_report(), f"{scheme}://report.test/hpkp")
        (delivery,) = queue.send()
    assert (delivery.outcome, delivery.reason) == ("later", "it took longer than 3 seconds")


def test_the_proxy_of_the_environment_is_used(store: PinStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with Inbox() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        queue = by_hand(store)
        queue.add(a_report(), "http://nowhere.invalid/hpkp")
        assert outcomes(queue) == ["sent"]
        assert [path for path, _, _ in proxy.requests] == ["http://nowhere.invalid/hpkp"]


# -- over TLS ---------------------------------------------------------------------------------------------------------


def test_https_trusts_what_the_enforced_context_trusts_and_nothing_else(
    world: World, routes: dict[str, int], clock: Clock
) -> None:
    stranger = trustme.CA()
    for authority, outcome in ((world.honest, "sent"), (stranger, "later")):
        with TLSServer(authority.issue_cert("report.test")) as collector:
            routes["report.test"] = collector.port
            queue = by_hand(world.store, context=world.plain_context())
            queue.drop()
            queue.add(a_report(), "https://report.test/hpkp")
            assert outcomes(queue) == [outcome]
            assert (b"POST /hpkp" in collector.received) == (outcome == "sent")


def test_a_client_certificate_is_never_shown(world: World, routes: dict[str, int]) -> None:
    context = world.plain_context()
    world.honest.issue_cert("me@bank.test").configure_cert(context)
    with TLSServer(world.honest.issue_cert("report.test"), client_ca=world.honest.cert_pem.bytes()) as collector:
        routes["report.test"] = collector.port
        queue = by_hand(world.store, context=context)
        queue.add(a_report(), "https://report.test/hpkp")
        assert outcomes(queue) == ["later"]
        assert collector.handshakes == 0


def test_the_report_uris_own_pins_hold_and_two_hosts_that_report_to_each_other_make_no_loop(
    world: World, routes: dict[str, int]
) -> None:
    world.store.pin("report.test", PINS, report_uri=f"https://{HOST}/report")
    world.store.pin(HOST, world.header.pins, report_uri="https://report.test/hpkp")
    with TLSServer(world.honest.issue_cert("report.test")) as collector:
        routes["report.test"] = collector.port
        queue = by_hand(world.store, context=world.plain_context())
        violate(world, enforce(world.plain_context(), world.store, reporter=queue))
        (delivery,) = queue.send()
        assert (delivery.outcome, collector.application_bytes) == ("later", 0)
        assert "fails Pin Validation itself" in delivery.reason
    assert [report.host for report in queue.reports()] == [HOST]


# -- in the background ------------------------------------------------------------------------------------------------


def test_an_enforced_context_reports_by_itself(world: World, inbox: Inbox) -> None:
    world.store.pin(HOST, world.header.pins, report_uri=URI)
    violate(world, enforce(world.plain_context(), world.store))
    world.store.close()  # as a script does that leaves its `with` by the error
    assert inbox.next_report()["hostname"] == HOST


@pytest.mark.parametrize("reporter", [None, "off"])
def test_it_reports_nothing_where_that_is_switched_off(world: World, reporter: Literal["off"] | None) -> None:
    world.store.pin(HOST, world.header.pins, report_uri=URI)
    violate(world, enforce(world.plain_context(), world.store, reporter=reporter))
    assert ReportQueue(world.store).reports() == []


def test_a_reporter_of_ones_own_takes_it(world: World) -> None:
    taken: list[tuple[Report, str]] = []

    class Own:
        def add(self, report: Report, report_uri: str) -> None:
            taken.append((report, report_uri))

    world.store.pin(HOST, world.header.pins, report_uri=URI)
    error = violate(world, enforce(world.plain_context(), world.store, reporter=Own()))
    assert taken == [(error.report, URI)]


def test_enforcing_twice_with_the_same_reporter_is_enforcing_once(world: World) -> None:
    context = enforce(world.plain_context(), world.store)
    once = context.sslsocket_class
    assert enforce(context, world.store).sslsocket_class is once
    assert enforce(context, world.store, reporter="same-domain").sslsocket_class is not once


def test_the_thread_ends_when_nothing_waits_and_begins_again(store: PinStore, inbox: Inbox) -> None:
    queue = ReportQueue(store)
    for number in range(3):
        queue.add(a_report(f"h{number}.test"), URI)
        assert inbox.next_report()["hostname"] == f"h{number}.test"
        assert queue.wait(60)
    assert [report.state for report in queue.reports()] == ["sent"] * 3


def test_what_an_earlier_process_left_is_sent_by_the_next(world: World, inbox: Inbox) -> None:
    by_hand(world.store).add(a_report("earlier.test"), URI)
    context = enforce(world.plain_context(), world.store)
    with context.wrap_socket(world.connect(world.site), server_hostname=HOST):
        pass
    assert inbox.next_report()["hostname"] == "earlier.test"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own(store: PinStore, inbox: Inbox) -> None:
    queue = ReportQueue(store)
    queue.add(a_report("parent.test"), URI)
    assert inbox.next_report()["hostname"] == "parent.test"
    assert queue.wait(60)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's own process
        queue.add(a_report("child.test"), URI)
        os._exit(0 if queue.wait(60) and not queue.pending() else 1)
    assert inbox.next_report()["hostname"] == "child.test"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_script_that_is_refused_and_ends_has_reported(world: World, inbox: Inbox) -> None:
    script = textwrap.dedent("""
        import socket, ssl, sys
        from dynpin.clientstore import PinStore, enforce
        from dynpin.clientstore.reports import queue
        queue._GRACE = 120.0  # a busy machine may need longer than a person would wait
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(sys.argv[2])
        with PinStore(sys.argv[1]) as store:
            enforce(context, store)
            context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[3]))), server_hostname="bank.test")
    """)
    roots = world.folder / "roots.pem"
    roots.write_bytes(world.rogue.cert_pem.bytes())
    world.store.pin(HOST, world.header.pins, report_uri=f"http://localhost:{inbox.port}/hpkp")
    command = [sys.executable, "-W", "ignore", "-c", script, str(world.store.path), str(roots)]
    done = subprocess.run(
        [*command, str(world.attacker.port)], capture_output=True, text=True, timeout=300, check=False
    )
    assert "shows none of its pinned keys" in done.stderr
    assert inbox.next_report()["hostname"] == HOST


def test_a_store_in_memory_reports_too(inbox: Inbox) -> None:
    with PinStore(":memory:") as store:
        queue = ReportQueue(store)
        queue.add(a_report(), URI)
        assert inbox.next_report()["hostname"] == HOST
        assert queue.wait(60)


# -- dynpin reports ---------------------------------------------------------------------------------------------------


def dynpin_reports(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from dynpin.cli import reports
    from dynpin.cli.errors import run

    code = run(lambda: reports.app([str(argument) for argument in arguments]))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_lists_sends_and_drops(tmp_path: Path, inbox: Inbox, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pins"
    assert dynpin_reports(capsys, "list", "--store", path) == (0, "No violation report was queued.\n", "")
    assert dynpin_reports(capsys, "send", "--store", path) == (0, "No report waits.\n", "")
    with PinStore(path) as store:
        queue = by_hand(store)
        for host in ("a.test", "b.test", "c.test"):
            queue.add(a_report(host), URI)
    code, out, _ = dynpin_reports(capsys, "list", "--store", path)
    assert code == 0
    assert all(text in out for text in ("a.test", "b.test", "waits", URI))
    inbox.status = 404
    code, out, _ = dynpin_reports(capsys, "send", "--store", path)
    assert code == 1
    assert "it answered 404" in out
    code, out, _ = dynpin_reports(capsys, "list", "--json", "--store", path)
    assert [(entry["host"], entry["state"], entry["attempts"]) for entry in json.loads(out)] == [
        (host, "pending", 1) for host in ("a.test", "b.test", "c.test")
    ]
    assert dynpin_reports(capsys, "drop", 1, "--store", path)[:2] == (0, "1 dropped\n")
    assert dynpin_reports(capsys, "drop", 1, "--store", path) == (1, "", "dynpin: there is no report 1\n")
    inbox.status = 200
    code, out, _ = dynpin_reports(capsys, "send", "--json", "--store", path)
    assert code == 0
    assert [(entry["id"], entry["outcome"]) for entry in json.loads(out)] == [(3, "sent"), (2, "sent")]
    assert dynpin_reports(capsys, "drop", "--all", "--store", path)[:2] == (0, "2 dropped\n")


@pytest.mark.parametrize("arguments", [["drop"], ["drop", "1", "--all"], ["send", "--ca", "/nowhere"], ["nonsense"]])
def test_wrong_usage_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, err = dynpin_reports(capsys, *arguments, "--store", tmp_path / "pins")
    assert code == 2
    assert err
    assert "Traceback" not in err
