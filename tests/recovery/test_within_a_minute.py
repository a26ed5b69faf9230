"""No lock-out outlives a minute: what hangs, dies or comes at the same time holds up nobody else's list for long."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dynpin.clientstore import PinStore, bounded_http, resolving
from dynpin.clientstore.recovery import verifying
from dynpin.clientstore.store.lists import ask, claim, next_look_at, record, register
from dynpin.clientstore.store.table import put, selecting
from dynpin.hosts import KnownPinnedHost
from dynpin.recovery import FIRST_ROOT
from tests.recovery.conftest import HOST, Bank

DAY = 86_400.0


def several(bank: Bank, count: int) -> list[KnownPinnedHost]:
    """So many hosts, each of which has noted a root and a place of its own."""
    for number in range(count):
        header = bank.header(root=bytes([number]) * 32, uri=f"https://list{number}.test/")
        bank.store.note(f"host{number}.test", header, [bank.pins[0]])
    return [entry for entry in bank.store.hosts() if entry.recovery is not None]


def test_eleven_lists_that_hang_leave_an_honest_one_its_minute(bank: Bank) -> None:
    """The honest one was asked for last. Each look that hangs takes all the time that it is given."""
    hosts = several(bank, 12)
    last = hosts[-1].recovery
    assert last is not None

    def job(connection: sqlite3.Connection) -> float:
        start = now = bank.clock()
        for host in hosts:
            ask(connection, [host], now)
        while True:
            look = claim(connection, now)
            assert look is not None
            if look.recovery == last.standing:
                return now - start
            now += look.seconds
            record(connection, look, None, "it took too long", before={}, now=now)

    assert bank.store.database.write(job) <= 60.0


@pytest.mark.parametrize("after", [0, 1, 29, 30, 61, 7_200])
@pytest.mark.parametrize("every", [1, 10, 29, 30])
def test_from_signing_to_a_healed_client(bank: Bank, every: int, after: int) -> None:
    """A client that tries again every so many seconds, and a list that is signed so long after its first refusal."""
    hosts = several(bank, 1)

    def job(connection: sqlite3.Connection) -> float:
        begun = now = bank.clock()
        while now < begun + after + 120:
            ask(connection, hosts, now)  # the attempt is refused
            attempt = now + every
            # What the thread does until the next one.
            while (due := next_look_at(selecting(connection), now)) is not None and due < attempt:
                now = max(now, due)
                look = claim(connection, now)
                assert look is not None
                if now >= begun + after:
                    return attempt - begun - after
                record(connection, look, None, "it is no news", before={}, now=now)
            now = attempt
        raise AssertionError("no look has begun within two minutes")

    assert bank.store.database.write(job) <= 60


def test_a_look_without_success_gets_more_time(bank: Bank) -> None:
    """A list that is slow and honest is not given up for ever."""
    hosts = several(bank, 1)

    def job(connection: sqlite3.Connection) -> list[float]:
        now = bank.clock()
        given: list[float] = []
        ask(connection, hosts, now)
        for _ in range(5):
            now = next_look_at(selecting(connection), now) or 0.0
            look = claim(connection, now)
            assert look is not None
            given.append(look.seconds)
            record(connection, look, None, "it took too long", before={}, now=now)
        return given

    assert bank.store.database.write(job) == [5.0, 10.0, 20.0, 30.0, 30.0]


def test_many_processes_that_are_refused_fetch_once(bank: Bank) -> None:
    """Who asks while another looks takes the list from nobody, and sleeps until that look must have ended."""
    hosts = several(bank, 1)

    def job(connection: sqlite3.Connection) -> None:
        now = bank.clock()
        claims = []
        for _ in range(5):
            ask(connection, hosts, now)
            claims.append(claim(connection, now) is not None)
        assert claims == [True, False, False, False, False]
        due = next_look_at(selecting(connection), now)
        assert due is not None
        assert now < due <= now + 10  # a process that was killed in the middle is followed by another so soon
        assert claim(connection, due) is not None

    bank.store.database.write(job)


def test_a_lease_of_a_clock_that_was_wrong_is_none(bank: Bank) -> None:
    several(bank, 1)
    hosts = [replace(bank.store.hosts()[0], expires_at=None)]  # else it is no longer known in a year

    def job(connection: sqlite3.Connection) -> None:
        now = bank.clock()
        put(connection, hosts)
        ask(connection, hosts, now + 365 * DAY)
        assert claim(connection, now + 365 * DAY) is not None
        ask(connection, hosts, now)
        assert next_look_at(selecting(connection), now) == now
        assert claim(connection, now) is not None

    bank.store.database.write(job)


def test_a_refusal_during_a_daily_look_is_not_lost(bank: Bank) -> None:
    hosts = several(bank, 1)
    noted = hosts[0].recovery
    assert noted is not None
    assert noted.standing is not None
    recovery = noted.standing

    def job(connection: sqlite3.Connection) -> None:
        now = bank.clock()
        register(connection, recovery, FIRST_ROOT, b"{}", now)
        look = claim(connection, now)
        assert look is not None
        assert look.is_followed
        ask(connection, hosts, now)
        record(connection, look, None, "it was away", before={}, now=now + 1)
        assert (next_look_at(selecting(connection), now) or 0.0) - now <= 60

    bank.store.database.write(job)


# -- names and addresses -----------------------------------------------------------------------------------------------


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A resolver that answers nothing until the event is set."""
    go_on, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(*args: object, **options: object) -> object:
        assert go_on.wait(120)
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return go_on


def test_a_resolver_that_hangs_is_given_up_and_holds_few_threads(hanging: threading.Event) -> None:
    try:
        for number in range(40):
            with pytest.raises(TimeoutError, match=rf"resolver.*|bank{number}\.test"):
                resolving.addresses_of(f"bank{number}.test", 443, 0.0)
        with pytest.raises(TimeoutError):
            resolving.addresses_of("bank0.test", 443, 0.0)
        alive = [each for each in threading.enumerate() if each.name == "dynpin-resolver"]
        assert len(alive) == 16
    finally:
        hanging.set()
    for each in alive:
        each.join(60)
    assert resolving.addresses_of("localhost", 443, 60.0)


def test_look_ups_of_the_same_name_share_one_answer(hanging: threading.Event) -> None:
    with pytest.raises(TimeoutError):
        resolving.addresses_of("localhost", 1, 0.0)
    hanging.set()
    assert resolving.addresses_of("localhost", 1, 60.0)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test", "no-such-name.invalid"])
def test_a_name_without_an_address_is_an_error_of_the_resolver(host: str) -> None:
    with pytest.raises(socket.gaierror):
        resolving.addresses_of(host, 443, 60.0)


def test_the_child_of_a_fork_resolves_though_its_parent_waits(hanging: threading.Event) -> None:
    with pytest.raises(TimeoutError):
        resolving.addresses_of("localhost", 443, 0.0)
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        hanging.set()
        os._exit(0 if resolving.addresses_of("localhost", 443, 60.0) else 1)
    hanging.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_at_the_end_of_a_process_a_name_is_resolved_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on no thread begins in atexit, when the last reports are sent."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert resolving.addresses_of("localhost", 443, 0.0)


def test_a_dead_address_costs_a_look_its_share_once(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list has some six files. Only the first one tries the address that does not answer."""
    real = socket.create_connection
    tried: list[object] = []
    dead = ("127.0.0.2", urlsplit(bank.publisher.uri).port)  # a list of another test has another port

    def connect(address: tuple[str, int], *args: object, **options: object) -> socket.socket:
        tried.append(address)
        if address[0] == dead[0]:
            raise TimeoutError("timed out")
        return real(address, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(
        bounded_http,
        "addresses_of",
        lambda host, port, seconds: [(0, 0, 0, "", (dead[0], port)), (0, 0, 0, "", ("127.0.0.1", port))],
    )
    bank.lock_out()
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.finish_looks()
    assert not bank.refused(), bank.outcome()
    assert tried.count(dead) == 1


# -- forks -------------------------------------------------------------------------------------------------------------

CHILD_ENDS = """
import os, sys
from dynpin.clientstore.recovery.verifying import _folder
with _folder() as folder:
    child = os.fork()
    if child == 0:
        sys.exit(0)  # as a worker that ends by itself
    assert os.waitpid(child, 0)[1] == 0
    assert folder.is_dir()
assert not folder.exists()
"""


def test_a_forked_child_that_ends_leaves_its_parents_folder_alone(tmp_path: Path) -> None:
    assert verifying.__name__ == "dynpin.clientstore.recovery.verifying"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", CHILD_ENDS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_list_that_was_asked_for_before_takes_no_key_of_a_new_header(bank: Bank) -> None:
    """The client was refused, and found no list. Its pins expired, and it noted the new key from the header."""
    bank.operator.sign({HOST: bank.pins})
    bank.visit(bank.header(max_age=600))
    bank.lose_keys()
    bank.publisher.folder = bank.folder / "nowhere"
    assert bank.refused()
    bank.finish_looks()
    bank.publisher.folder = bank.operator.www
    bank.later(601)
    noting = bank.visit(bank.header(*bank.new_pins))
    assert noting is not None
    assert noting.outcome == "noted"
    bank.later(DAY / 2)
    with PinStore(bank.store.path, clock=bank.clock) as of_another_process:
        bank.visit(None, store=of_another_process)  # which looks at what is due
        bank.finish_looks()
        assert not bank.refused(store=of_another_process)
