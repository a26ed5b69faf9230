"""The purpose of recovery: a lock-out ends with the next attempt, and without an attempt nothing is fetched."""

from __future__ import annotations

import socket
import ssl

import pytest

from dynpin import PinValidationError
from dynpin.clientstore import enforce
from tests.recovery.conftest import HOST, Bank


def test_a_lock_out_ends_with_the_next_attempt(bank: Bank) -> None:
    bank.lock_out()
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.heals()
    entry = bank.store.entry(HOST)
    assert entry is not None
    assert entry.pins == bank.new_pins
    assert entry.recovery is not None
    assert entry.recovery.list_version == 2


def test_a_client_refused_before_the_signature_is_healed_after_it(bank: Bank) -> None:
    bank.lock_out()
    assert bank.refused()
    bank.finish_looks()
    assert "no news" in bank.outcome()
    bank.operator.sign({HOST: bank.new_pins})
    bank.later()
    assert bank.heals()


def test_nothing_is_fetched_while_nothing_is_wrong(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.pins})
    for _ in range(3):
        bank.visit(bank.header())
    bank.finish_looks()
    assert bank.publisher.requests == []
    assert bank.store.looks() == []


def test_a_request_for_the_list_says_nothing_of_the_program(bank: Bank) -> None:
    bank.lock_out()
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused()
    bank.finish_looks()
    for path, headers in bank.publisher.requests:
        assert HOST not in path
        assert {name.lower() for name in headers} <= {"host", "user-agent", "accept-encoding", "connection"}
        assert HOST not in "".join(headers.values())


def test_recovery_off_looks_at_nothing(bank: Bank) -> None:
    bank.lock_out()
    plain_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bank.authority.configure_trust(plain_context)
    off = enforce(plain_context, bank.store, recovery="off")
    with (
        socket.create_connection(("127.0.0.1", bank.site.port), timeout=60) as plain,
        pytest.raises(PinValidationError),
    ):
        off.wrap_socket(plain, server_hostname=HOST)
    assert bank.store.looks() == []


def test_the_list_releases_a_host(bank: Bank) -> None:
    bank.lock_out()
    bank.operator.sign({HOST: ()})
    assert bank.heals()
    assert bank.store.known_host(HOST) is None
