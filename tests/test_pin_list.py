"""The signed list of pins: read strictly, written the same each time."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from dynpin import InvalidPinFile, Pin
from dynpin.header import MAX_PINS
from dynpin.pin_list import LONGEST_LIST, ListedHost, PinList

A, B = Pin(bytes(32)), Pin(b"\1" * 32)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "the list is not a JSON object"),
        ("{", "the list is not JSON"),
        ("[" * 100_000, "the list is not JSON"),
        ("{}", "hosts of the list is not a JSON object"),
        ('{"hosts": []}', "hosts of the list is not a JSON object"),
        ('{"hosts": {}, "max_age": 0}', "max_age of the list is not a whole number of seconds, at least 1"),
        ('{"hosts": {}, "max_age": true}', "max_age of the list is not a whole number"),
        ('{"hosts": {}, "max_age": 1.5}', "max_age of the list is not a whole number"),
        ('{"hosts": {}, "max_age": 2147483649}', "max_age of the list is not a whole number"),
        ('{"hosts": {}, "other": NaN}', "NaN is not a number of JSON"),
        ('{"hosts": {"A.test": {"pins": []}}}', "'A.test', which is not a canonical host name"),
        ('{"hosts": {"*.a.test": {"pins": []}}}', "'*.a.test', which is not a canonical host name"),
        ('{"hosts": {"192.0.2.1": {"pins": []}}}', "'192.0.2.1', which is not a canonical host name"),
        ('{"hosts": {"a..test": {"pins": []}}}', "a host that is not valid: 'a..test'"),
        ('{"hosts": {"a.test": []}}', "the list's entry of 'a.test' is not a JSON object"),
        ('{"hosts": {"a.test": {"pins": "x"}}}', "pins of a.test is not a list"),
        ('{"hosts": {"a.test": {}}}', "pins of a.test is not a list"),
        ('{"hosts": {"a.test": {"pins": ["x"]}}}', "pins of a.test: 'x'"),
        ('{"hosts": {"a.test": {"pins": [1]}}}', "pins of a.test: ''"),
        (
            '{"hosts": {"a.test": {"pins": [], "include_subdomains": 1}}}',
            "include_subdomains of a.test is not true or false",
        ),
    ],
)
def test_a_list_with_one_fault_is_refused_as_a_whole(text: str, told: str) -> None:
    with pytest.raises(InvalidPinFile) as caught:
        PinList.parse(text.encode())
    assert told in str(caught.value)


def test_the_limits_hold_to_the_last_one() -> None:
    most = [str(Pin(bytes([number]) * 32)) for number in range(MAX_PINS)]
    text = json.dumps({"hosts": {"a.test": {"pins": most}}, "max_age": 2**31}).encode()
    longest = text + b" " * (LONGEST_LIST - len(text))
    assert [str(pin) for pin in PinList.parse(longest).hosts["a.test"].pins] == most
    assert PinList.parse(b'{"hosts": {}, "max_age": 1}').max_age == 1
    with pytest.raises(InvalidPinFile, match=f"the list has {LONGEST_LIST + 1} bytes, but the limit is {LONGEST_LIST}"):
        PinList.parse(longest + b" ")
    with pytest.raises(InvalidPinFile, match=f"a.test has {MAX_PINS + 1} pins, but the limit is {MAX_PINS}"):
        PinList.parse(json.dumps({"hosts": {"a.test": {"pins": [*most, str(Pin(b"\xff" * 32))]}}}).encode())


def test_a_list_can_be_written_and_read() -> None:
    pins = PinList({"b.test": ListedHost((A, B), True), "a.test": ListedHost(())}, 3_600)
    assert PinList.parse(pins.to_bytes()) == pins


def test_what_a_list_leaves_out_has_a_default() -> None:
    pins = PinList.parse(json.dumps({"hosts": {"a.test": {"pins": [str(A), str(A)]}}}).encode())
    assert pins == PinList({"a.test": ListedHost((A,), include_subdomains=False)}, max_age=30 * 86_400)


def test_the_same_list_gives_the_same_bytes() -> None:
    a, b = ListedHost((A,)), ListedHost((B,))
    written = PinList({"b.test": b, "a.test": a}, 60).to_bytes()
    assert written == PinList({"a.test": a, "b.test": b}, 60).to_bytes()
    said = {
        "a.test": {"include_subdomains": False, "pins": [str(A)]},
        "b.test": {"include_subdomains": False, "pins": [str(B)]},
    }
    assert written.decode("ascii") == json.dumps({"hosts": said, "max_age": 60}, indent=1) + "\n"


def test_nobody_changes_a_list_that_was_read() -> None:
    made = {"a.test": ListedHost((A,))}
    pins = PinList(made)
    made.clear()
    assert list(pins.hosts) == ["a.test"]
    with pytest.raises(TypeError):
        cast("dict[str, Any]", pins.hosts)["b.test"] = ListedHost(())
