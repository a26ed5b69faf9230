"""Troubles of the client's own machine: a wrong clock, a backup of the store, a killed process, two at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dynpin.clientstore import PinStore
from dynpin.clientstore.recovery import HTTPFetcher, verify
from dynpin.clientstore.store.lists import ask, claim, looks, record, register, trusted_files
from dynpin.errors import StoreError
from dynpin.recovery import Recovery
from tests.recovery.conftest import HOST, Bank


@pytest.mark.parametrize("years", [1, -1])
def test_a_clock_that_is_wrong_by_a_year(bank: Bank, years: int) -> None:
    bank.operator.sign({HOST: bank.pins})
    bank.offset[0] = years * 365 * 86_400
    bank.visit(bank.header())
    bank.lose_keys()
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.finish_looks()
    if years > 0:
        assert "or your clock is wrong" in bank.outcome()
        assert bank.refused()
    else:  # a slow clock cannot see that something has expired, so the signature counts
        assert not bank.refused()


def test_a_store_from_a_backup_takes_the_present_list_and_no_expired_one(bank: Bank) -> None:
    bank.lock_out()
    bank.store.rest()
    shutil.copy(bank.folder / "pins", bank.folder / "copy")
    bank.operator.sign({HOST: bank.new_pins})
    with PinStore(bank.folder / "copy", clock=bank.clock) as copy:
        assert bank.heals(store=copy)
    shutil.copy(bank.folder / "pins", bank.folder / "late")
    bank.later(8 * 86_400)
    with PinStore(bank.folder / "late", clock=bank.clock) as late:
        assert bank.refused(store=late)
        bank.finish_looks()
        assert "has expired" in str(late.looks()[0].outcome)
        assert bank.refused(store=late)


def test_the_next_process_does_what_a_killed_one_asked_for(bank: Bank) -> None:
    bank.lock_out()
    held = bank.publisher.stop

    def hang(handler: BaseHTTPRequestHandler) -> bool:
        return held.wait(600)

    bank.publisher.misbehave = hang
    program = f"""
import socket, ssl, sys
from dynpin.clientstore import PinStore, enforce
store = PinStore({str(bank.folder / "pins")!r})
context = enforce(ssl.create_default_context(cafile={str(bank.folder / "ca.pem")!r}), store)
try:
    context.wrap_socket(socket.create_connection(("127.0.0.1", {bank.site.port})), server_hostname={HOST!r})
except ssl.SSLCertVerificationError:
    print("refused", flush=True)
sys.stdin.read()
"""
    (bank.folder / "ca.pem").write_bytes(bank.authority.cert_pem.bytes())
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"refused\n"
        while not bank.publisher.requests:  # wait until it is in the middle of the look
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    bank.publisher.misbehave = None
    bank.operator.sign({HOST: bank.new_pins})
    bank.later(61)  # the lease of the killed process is over
    with bank.context().wrap_socket(_connected(bank), server_hostname="shop.test"):
        pass  # any handshake of the next process continues the look
    bank.finish_looks()
    assert not bank.refused()


def _connected(bank: Bank) -> socket.socket:
    return socket.create_connection(("127.0.0.1", bank.site.port), timeout=60)


def test_two_processes_that_apply_lists_at_once_leave_the_newer_one(bank: Bank) -> None:
    bank.lock_out()
    recovery = bank.operator.repository.recovery(bank.publisher.uri)
    bank.store.database.write(lambda connection: ask(connection, bank.store.hosts(), bank.clock()))
    (look,) = looks(bank.store.database.select)
    files = trusted_files(bank.store.database.select, recovery.root)
    first = verify(recovery, files, HTTPFetcher(5.0), bank.clock())
    bank.operator.sign({HOST: bank.new_pins})
    second = verify(recovery, files, HTTPFetcher(5.0), bank.clock())
    now = bank.clock()
    for seen, changed in ((second, (HOST,)), (first, ())):
        applied = bank.store.database.write(
            partial(record, look=look, seen=seen, problem=seen.problem, before=files, now=now)
        )
        assert applied == changed
    assert not bank.refused()
    assert f"version 2 of the list gave {HOST} other pins" in bank.outcome()


@pytest.mark.parametrize(
    "damage",
    [
        *("root = 7", "uri = 'x'", "uri = CAST(x'ff' AS TEXT)", "uri = CAST(x'6800ff' AS TEXT)", "attempts = 9e999"),
        *("looked_at = 'x'", "next_look_at = 'x'", "next_look_at = x'ff'", "outcome = CAST(x'ff' AS TEXT)"),
    ],
)
def test_a_damaged_row_of_one_list_keeps_no_other_from_being_read(
    bank: Bank, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    bank.lock_out()
    bank.operator.sign({HOST: bank.new_pins})
    other = "INSERT INTO looks VALUES (zeroblob(32), 'https://lists.test/', 1, -1, NULL, 0, NULL, NULL)"
    bank.store.database.write(lambda connection: connection.execute(other))
    bank.store.database.write(lambda connection: connection.execute(f"UPDATE looks SET {damage}"))
    assert bank.refused()
    bank.finish_looks()
    assert not bank.refused(), bank.outcome()
    # A text that cannot be read is shown as far as it can be.
    assert ("damaged in the store's file" in caplog.text) == (not damage.startswith("outcome"))


def test_a_list_whose_key_does_not_lead_to_it_is_not_fetched_without_end(tmp_path: Path) -> None:
    file, roots = tmp_path / "pins", [bytes([number]) * 32 for number in (1, 2, 3)]
    with PinStore(file) as store:
        for root in roots:
            store.database.write(
                partial(register, recovery=Recovery(root, "https://lists.test/"), name="x", data=b"", now=0.0)
            )
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    data = file.read_bytes()
    assert data.count(roots[0] + b"https") == 1
    file.write_bytes(data.replace(roots[0] + b"https", bytes([9]) * 32 + b"https"))
    with PinStore(file) as store, pytest.raises(StoreError, match=r"not in its place.*hosts check --repair"):
        list(iter(lambda: store.database.write(partial(claim, now=store.clock())), None))
