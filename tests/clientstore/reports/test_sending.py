"""How a report is sent (RFC 7469 §3): answers, retries, and over TLS."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Generator

import pytest
import trustme

from dynpin.clientstore import PinStore, enforce
from dynpin.lab.network import TLSServer
from dynpin.report import parse_report

from ...clock import Clock
from ..inbox import Inbox
from ..programs import Ground
from ..queued import DAY, HOUR, PINS, URI, a_report, by_hand, outcomes, violate
from ..world import HOST, World

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


def test_attempts_count_even_if_a_report_is_tried_again_or_deleted(store: PinStore, clock: Clock) -> None:
    queue, start = by_hand(store, max_per_hour=10), clock.now
    for number in range(8):
        queue.add(a_report(f"h{number}.test"), URI)
    attempts = len(queue.send())
    while clock.now < start + HOUR - 60:
        clock.now += 60
        attempts += len(queue.send())
    assert attempts == 10
    queue.drop()
    queue.add(a_report(), URI)
    assert queue.send() == []
    clock.now = start + HOUR
    assert len(queue.send()) == 1


def test_with_a_limit_of_zero_no_report_is_sent(store: PinStore, inbox: Inbox) -> None:
    queue = by_hand(store, max_per_hour=0)
    queue.add(a_report(), URI)
    assert queue.send(early=True) == []
    assert inbox.requests == []


def test_two_processes_never_send_the_same_report_at_once(store: PinStore, clock: Clock, inbox: Inbox) -> None:
    by_hand(store).add(a_report(), URI)
    with PinStore(store.path, clock=clock) as second:
        meanwhile: list[object] = []
        inbox.on_post = lambda: meanwhile.append(by_hand(second).send())
        assert outcomes(by_hand(store)) == ["sent"]
    assert meanwhile == [[]]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_another_process_sends_a_report_that_was_not_finished(store: PinStore, clock: Clock, inbox: Inbox) -> None:
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


def test_text_from_the_other_side_is_escaped_for_the_terminal(store: PinStore, routes: dict[str, int]) -> None:
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
    """The port of a server that sends one byte at a time and never ends its response."""

    def serve() -> None:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                certificate.configure_cert(context)
                connection = stack.enter_context(context.wrap_socket(connection, server_side=True))
            connection.sendall(first)
            for _ in range(1_000):  # so that the test always ends
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


OWN_WORK = """
import sys
from dynpin.clientstore import PinStore, ReportQueue
from dynpin.clientstore.recovery.fetching import HTTPFetcher
with PinStore() as store:
    queue = ReportQueue(store, background=False)
    print([delivery.reason.partition(":")[0] for delivery in queue.send()], [report.host for report in queue.reports()])
print(b"".join(HTTPFetcher(60.0).fetch(sys.argv[1])).decode())
"""


def test_dynpin_run_leaves_dynpins_own_connections_as_they_are(world: World) -> None:
    """A report makes no other one. A signed list is read from a host that shows a wrong key: the list may end that."""
    (world.folder / "ground").mkdir()
    ground = Ground(world, world.folder / "ground")
    with PinStore(ground.store) as store:
        store.pin(HOST, world.header.pins, report_uri="https://report.test/hpkp")
        by_hand(store).add(a_report("other.test"), world.attacker.url(HOST))
    done = ground.start("-c", OWN_WORK, world.attacker.url(HOST), reports=True)
    body = world.attacker.body.decode()
    assert done.stdout == f"['its host fails Pin Validation itself'] ['other.test']\n{body}\n", done.stderr
