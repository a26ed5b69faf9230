"""RFC 7469 §2.6: Pin Validation is set intersection."""

from __future__ import annotations

import hashlib
import pickle
import ssl
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import KnownPinnedHost, Pin, PinValidationError
from dynpin.validation import validate

PINS = [Pin(bytes([number]) * 32) for number in range(6)]


def known(*pins: Pin, host: str = "bank.test") -> KnownPinnedHost:
    return KnownPinnedHost(host, pins, True, None, 0.0, 1000.0)


some_pins = st.lists(st.sampled_from(PINS), max_size=4)


@given(some_pins, some_pins)
def test_the_connection_goes_on_where_the_sets_intersect(pinned: list[Pin], chain: list[Pin]) -> None:
    validation = validate("bank.test", known(*pinned), chain)
    assert validation.ok == bool(set(pinned) & set(chain))
    assert validation.chain == tuple(chain)
    assert validation.known_host == known(*pinned)
    assert validation.section == "2.6"
    if validation.ok:
        assert validation.matched in pinned
        assert validation.matched in chain
        assert str(validation.matched) in validation.reason
    else:
        assert validation.matched is None


@given(some_pins)
def test_a_host_that_is_not_known_may_show_any_chain(chain: list[Pin]) -> None:
    validation = validate("bank.test", None, chain)
    assert validation.ok
    assert (validation.known_host, validation.matched, validation.section) == (None, None, "2.3.3")
    assert validation.reason == "bank.test is not a Known Pinned Host"


@pytest.mark.parametrize("position", range(3))
def test_a_pin_may_match_anywhere_in_the_chain(position: int) -> None:
    validation = validate("bank.test", known(PINS[position], PINS[5]), PINS[:3])
    assert validation.ok
    assert validation.matched == PINS[position]


def test_the_first_match_from_the_leaf_is_named() -> None:
    assert validate("bank.test", known(PINS[2], PINS[1]), PINS[:3]).matched == PINS[1]


def test_no_verified_chain_fails_closed() -> None:
    validation = validate("bank.test", known(*PINS), [])
    assert not validation.ok
    assert (
        validation.reason == "bank.test is pinned, and this connection has no verified chain to hold against its pins"
    )


def test_expiry_releases_or_refuses() -> None:
    entry = known(PINS[0])
    refuses = replace(entry, source="static", on_expiry="refuse")
    for chain in ([PINS[0]], [PINS[1]], []):
        for either in (entry, refuses):  # up to the Effective Expiration Date both are checked against the chain
            assert validate("bank.test", either, chain, now=1000.0).ok == (chain == [PINS[0]])
        released = validate("bank.test", entry, chain, now=1000.1)
        assert (released.ok, released.known_host, released.section) == (True, None, "2.3.3")
        refused = validate("bank.test", refuses, chain, now=1000.1)
        assert (refused.ok, refused.known_host, refused.section) == (False, refuses, "2.7")
        assert refused.chain == tuple(chain)
        assert refused.reason == "the static pins of bank.test have expired, and they were set to refuse from then on"


def test_a_static_entry_may_name_certificates() -> None:
    leaf, other = b"leaf", b"other"
    entry = replace(known(PINS[0]), source="static", certificates=(hashlib.sha256(leaf).digest(),))
    shown = validate("bank.test", entry, [PINS[1]], certificates=[other, leaf])
    assert (shown.ok, shown.matched, shown.section) == (True, None, "2.7")
    assert validate("bank.test", entry, [PINS[0]], certificates=[other]).matched == PINS[0]
    assert not validate("bank.test", entry, [PINS[1]], certificates=[other]).ok
    assert not validate("bank.test", entry, [PINS[1]]).ok
    assert not validate("bank.test", known(PINS[0]), [PINS[1]], certificates=[leaf]).ok


def test_the_entry_of_a_superdomain_is_named() -> None:
    validation = validate("www.bank.test", known(PINS[0]), [PINS[1]])
    assert not validation.ok
    assert validation.host == "www.bank.test"
    assert validation.known_host is not None
    assert validation.known_host.host == "bank.test"
    assert validation.reason == "www.bank.test shows none of its pinned keys"


def test_the_failure_is_a_certificate_failure_to_every_library() -> None:
    validation = validate("bank.test", known(PINS[0]), [PINS[1]])
    error = PinValidationError("bank.test shows none of its pinned keys.", validation=validation)
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert isinstance(error, ssl.SSLError)
    assert isinstance(error, OSError)
    assert str(error) == "bank.test shows none of its pinned keys."
    assert (error.errno, error.strerror) == (1, str(error))
    assert (error.library, error.reason) == ("SSL", "CERTIFICATE_VERIFY_FAILED")
    assert error.verify_message == str(error)
    assert error.verify_code > 0
    assert error.validation == validation


def test_the_failure_crosses_processes() -> None:
    validation = validate("bank.test", known(PINS[0]), [PINS[1]])
    error = pickle.loads(pickle.dumps(PinValidationError("no", validation=validation)))
    assert isinstance(error, PinValidationError)
    assert (str(error), error.validation, error.report) == ("no", validation, None)
