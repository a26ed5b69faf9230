"""Reports are sent in the background: threads, event loops, and the end of a process."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from dynpin import Report
from dynpin.clientstore import PinStore, ReportQueue, enforce, healing
from dynpin.clientstore.background import Background
from dynpin.clientstore.healing import Healing
from dynpin.clientstore.reports import queue
from tests.small_disk import mounted

from ..inbox import Inbox
from ..queued import URI, a_report, by_hand, violate
from ..world import HOST, World


def test_an_enforced_context_reports_by_itself(world: World, inbox: Inbox) -> None:
    world.store.pin(HOST, world.header.pins, report_uri=URI)
    violate(world, enforce(world.plain_context(), world.store))
    world.store.close()  # as a script does when the error leaves its `with`
    assert inbox.next_report()["hostname"] == HOST


def test_a_store_on_a_read_only_disk_reports_nothing_and_says_so_in_one_line(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted(tmp_path / "disk", 8) as disk:
        with PinStore(disk / "pins") as store:
            store.pin(HOST, world.header.pins, report_uri=URI)
            by_hand(store).add(a_report("waits.test"), URI)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with PinStore(disk / "pins") as store:
            violate(world, enforce(world.plain_context(), store))
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert ["could not be kept" in record.message for record in warnings] == [True]
    assert "mounted read-only" in caplog.text
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_store_that_cannot_be_written_ends_the_sending_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(queue, "claim", claim)
    with PinStore(tmp_path / "pins") as store:
        by_hand(store).add(a_report("waits.test"), URI)
        sending = ReportQueue(store)
        sending.start()
        store.database.write(lambda _: None)  # after the start
        assert sending.wait(30)
    (said,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert "sending of reports ended" in said.message
    assert "database is locked" in said.message
    assert said.exc_info is None


@pytest.mark.parametrize("reporter", [None, "off"])
def test_it_reports_nothing_if_reports_are_off(world: World, reporter: Literal["off"] | None) -> None:
    world.store.pin(HOST, world.header.pins, report_uri=URI)
    violate(world, enforce(world.plain_context(), world.store, reporter=reporter))
    assert ReportQueue(world.store).reports() == []


def test_a_users_own_reporter_gets_the_report(world: World) -> None:
    taken: list[tuple[Report, str]] = []

    class Own:
        def add(self, report: Report, report_uri: str) -> None:
            taken.append((report, report_uri))

    world.store.pin(HOST, world.header.pins, report_uri=URI)
    error = violate(world, enforce(world.plain_context(), world.store, reporter=Own()))
    assert taken == [(error.report, URI)]


def test_what_an_earlier_process_left_is_gone_on_with_at_the_first_handshake_and_once(world: World) -> None:
    resumed: list[str] = []

    class Own:
        def add(self, report: Report, report_uri: str) -> None: ...

        def resume(self) -> None:
            resumed.append("reports")
            raise OSError("no room")  # never reaches the caller

    context = enforce(world.plain_context(), world.store, reporter=Own())
    assert resumed == []
    for _ in range(2):
        with context.wrap_socket(world.connect(world.site), server_hostname=HOST):
            assert resumed == ["reports"]


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


def test_the_next_process_sends_reports_that_an_earlier_one_left(world: World, inbox: Inbox) -> None:
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


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_wait_for_what_its_parent_sends(store: PinStore, inbox: Inbox) -> None:
    queue, children = ReportQueue(store), list[int]()

    def fork() -> None:
        child = os.fork()
        if child == 0:  # pragma: no cover - the child's own process
            os._exit(0 if queue.wait(0.0) else 1)
        children.append(child)

    inbox.on_post = fork
    queue.add(a_report(), URI)
    assert queue.wait(60)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0]


@pytest.mark.parametrize(
    ("kind", "at_the_end", "grace"), [(ReportQueue, queue._farewell, 0.5), (Healing, healing._farewell, 2.0)]
)
def test_a_process_that_ends_waits_for_work_in_progress_but_not_for_long(
    store: PinStore, kind: type[Background], at_the_end: Callable[[], None], grace: float
) -> None:
    waited: list[float] = []
    watched = type("Watched", (kind,), {"wait": lambda self, timeout: waited.append(timeout)})(store)
    at_the_end()
    assert [0 < timeout <= grace for timeout in waited] == [True], watched


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
