"""RFC 7469 §3: the violation report, read leniently, member by member."""

from __future__ import annotations

import base64
import json
import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import InvalidReport, Pin, Report
from dynpin.report import (
    ReportedRecovery,
    grouping_key,
    parse_report,
)
from dynpin.report.reading import MAX_CERTIFICATE, MAX_CERTIFICATES, MAX_DEPTH, MAX_KNOWN_PINS, MAX_TEXT

from .report_bodies import ONE, TWO, body

LONG = "a" * (MAX_TEXT + 1)


MEMBERS: list[tuple[dict[str, object], set[str], dict[str, object]]] = [
    ({}, set(), {"hostname": "www.bank.test", "port": 443, "include_subdomains": False}),
    ({"hostname": "WWW.Bank.Test."}, set(), {"hostname": "www.bank.test"}),
    ({"hostname": "bücher.example"}, set(), {"hostname": "xn--bcher-kva.example"}),
    ({"hostname": "192.0.2.7"}, set(), {"hostname": "192.0.2.7"}),
    ({"hostname": "a b"}, {"bad-hostname"}, {"hostname": "a b"}),
    ({"hostname": "ü" * (MAX_TEXT + 1)}, {"bad-hostname"}, {"hostname": "ü" * MAX_TEXT}),
    ({"noted_hostname": None}, {"no-noted-hostname"}, {"noted_hostname": None}),
    ({"noted_hostname": 7}, {"bad-noted-hostname"}, {"noted_hostname": None}),
    ({"noted_hostname": "<script>"}, {"bad-noted-hostname"}, {"noted_hostname": "<script>"}),
    ({"port": None}, {"no-port"}, {"port": None}),
    ({"port": "8443"}, {"port-as-text"}, {"port": 8443}),
    ({"recovery": {"state": "asked", "list-version": 3}}, set(), {"recovery": ReportedRecovery("asked", 3)}),
    ({"recovery": {"state": "asked"}}, {"bad-recovery"}, {"recovery": None}),
    ({"recovery": {"state": "asked", "list-version": -1}}, {"bad-recovery"}, {"recovery": None}),
    ({"recovery": {"state": "asked", "list-version": True}}, {"bad-recovery"}, {"recovery": None}),
    ({"recovery": {"state": "asked", "list-version": 2**70}}, {"bad-recovery"}, {"recovery": None}),
    ({"recovery": {"state": "healed", "list-version": 1}}, {"bad-recovery"}, {"recovery": None}),
    ({"recovery": "asked"}, {"bad-recovery"}, {"recovery": None}),
    ({"port": "99999"}, {"port-as-text", "bad-port"}, {"port": None}),
    ({"port": 65535}, set(), {"port": 65535}),
    ({"port": 65536}, {"bad-port"}, {"port": None}),
    ({"port": "000443"}, {"bad-port"}, {"port": None}),
    ({"port": "https"}, {"bad-port"}, {"port": None}),
    ({"port": "\u0664\u0664\u0663"}, {"bad-port"}, {"port": None}),
    ({"port": 0}, {"bad-port"}, {"port": None}),
    ({"port": 443.0}, {"bad-port"}, {"port": None}),
    ({"port": True}, {"bad-port"}, {"port": None}),
    ({"port": 10**1000}, {"bad-port"}, {"port": None}),
    ({"include_subdomains": None}, {"no-include-subdomains"}, {"include_subdomains": None}),
    ({"include_subdomains": "true"}, {"bad-include-subdomains"}, {"include_subdomains": None}),
    ({"include_subdomains": 1}, {"bad-include-subdomains"}, {"include_subdomains": None}),
    ({"date_time": "2014-04-06T13:00:50.076Z"}, set(), {"date_time": 1396789250.076}),
    ({"date_time": "2014-04-06t15:00:50+02:00"}, set(), {"date_time": 1396789250.0}),
    ({"date_time": "2014-04-06T13:00:50"}, {"naive-date-time"}, {"date_time": 1396789250.0}),
    ({"date_time": "2014-04-06"}, {"bad-date-time"}, {"date_time": None}),
    ({"date_time": 1396789250}, {"bad-date-time"}, {"date_time": None}),
    ({"date_time": None}, {"no-date-time"}, {"date_time": None}),
    ({"date_time": LONG}, {"bad-date-time"}, {"date_time": None}),
    # Times that no calendar can write back.
    ({"date_time": "0001-01-01T00:00:00+23:59"}, {"bad-date-time"}, {"date_time": None}),
    ({"date_time": "9999-12-31T23:59:59-23:59"}, {"bad-date-time"}, {"date_time": None}),
    ({"date_time": "9999-12-31T23:59:59.999999Z"}, {"bad-date-time"}, {"date_time": None}),
    ({"effective_expiration_date": ""}, {"bad-expiration"}, {"effective_expiration_date": None}),
    ({"effective_expiration_date": None}, {"no-expiration"}, {"effective_expiration_date": None}),
    (
        {"effective_expiration_date": "1970-01-01T00:00:00"},
        {"naive-expiration"},
        {"effective_expiration_date": 0.0},
    ),
    ({"known_pins": None}, {"no-known-pins"}, {"known_pins": ()}),
    ({"known_pins": {}}, {"no-known-pins"}, {"known_pins": ()}),
    ({"known_pins": [f"pin-sha256='{ONE}'"]}, set(), {"known_pins": (ONE,)}),
    ({"known_pins": [f'PIN-SHA256="{ONE}"', f'pin-sha256="{ONE}"']}, set(), {"known_pins": (ONE,)}),
    # "the token refers to the algorithm name", says the text of §3; its example has pin-sha256.
    ({"known_pins": [f'sha256="{ONE}"']}, set(), {"known_pins": (ONE,)}),
    ({"known_pins": [f'pin-sha256="\\{ONE}"']}, set(), {"known_pins": (ONE,)}),
    ({"known_pins": [str(ONE), f'pin-sha256="{TWO}"']}, {"bare-known-pins"}, {"known_pins": (ONE, TWO)}),
    ({"known_pins": ['pin-sha512="x"', f'pin-sha256="{ONE}"']}, {"other-known-pins"}, {"known_pins": (ONE,)}),
    ({"known_pins": ["x", 7, None, [], f'pin-sha256="{ONE}"']}, {"bad-known-pin"}, {"known_pins": (ONE,)}),
    ({"known_pins": [f'pin-sha256="{ONE}"'] * MAX_KNOWN_PINS}, set(), {"known_pins": (ONE,)}),
    (
        {"known_pins": [f'pin-sha256="{Pin(bytes([number]) * 32)}"' for number in range(MAX_KNOWN_PINS + 1)]},
        {"too-many-known-pins"},
        {"known_pins": tuple(Pin(bytes([number]) * 32) for number in range(MAX_KNOWN_PINS))},
    ),
    ({"served_certificate_chain": None}, {"no-served-chain"}, {"served_chain": ()}),
    ({"served_certificate_chain": "PEM"}, {"no-served-chain"}, {"served_chain": ()}),
    ({"served_certificate_chain": ["PEM", 7]}, {"bad-certificate"}, {"served_chain": ("PEM",)}),
    (
        {"served_certificate_chain": ["a" * (MAX_CERTIFICATE + 1)]},
        {"bad-certificate"},
        {"served_chain": ("a" * MAX_CERTIFICATE,)},
    ),
    ({"validated_certificate_chain": []}, {"no-validated-chain"}, {"validated_chain": ()}),
    (
        {"validated_certificate_chain": ["PEM"] * MAX_CERTIFICATES},
        {"bad-certificate"},
        {"validated_chain": ("PEM",) * MAX_CERTIFICATES},
    ),
    (
        {"validated_certificate_chain": ["PEM"] * (MAX_CERTIFICATES + 1)},
        {"bad-certificate", "too-many-certificates"},
        {"validated_chain": ("PEM",) * MAX_CERTIFICATES},
    ),
    ({"failure_mode": "enforce"}, {"unknown-members"}, {"extra": {"failure-mode": "enforce"}}),
]


@pytest.mark.parametrize(("given_members", "flags", "found"), MEMBERS)
def test_member(given_members: dict[str, object], flags: set[str], found: dict[str, object]) -> None:
    report = parse_report(body(**given_members))
    assert set(report.flags) == flags
    assert {name: getattr(report, name) for name in found} == found
    assert parse_report(report.to_json()).to_dict() == report.to_dict()


def test_every_flag_is_documented() -> None:
    flags = set[str]().union(*(flags for _, flags, _ in MEMBERS))
    assert parse_report.__doc__ is not None
    assert {flag for flag in flags if f"``{flag}``" not in parse_report.__doc__} == set()


@pytest.mark.parametrize("unreadable", [{"known_pins": ["?"]}, {"served_certificate_chain": ["?"]}])
def test_what_cannot_be_read_is_still_a_report(unreadable: dict[str, object]) -> None:
    """An operator whose clients write their pins wrongly wants to see it, not to lose their reports."""
    nothing: dict[str, object] = {"known_pins": [], "served_certificate_chain": [], "validated_certificate_chain": []}
    assert parse_report(body(**(nothing | unreadable))).hostname == "www.bank.test"
    with pytest.raises(InvalidReport, match="nothing-to-compare"):
        parse_report(body(**nothing))


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "not-json"),
        (b"{", "not-json"),
        (b"\xff\xfe\xfd", "not-json"),
        (b'{"hostname": "\xff"}', "not-json"),
        (body(port=float("nan")), "not-json"),
        (body(x=float("-inf")), "not-json"),
        # Half of a surrogate pair, escaped or raw, is text that no database takes.
        (body(hostname="\ud800"), "not-json"),
        (body(x=["\udfff"]), "not-json"),
        (b'{"hostname": "\xed\xa0\x80"}', "not-json"),
        (b"1" * 5000, "not-json"),
        # Python reads them as infinite, and would write what is not JSON.
        (b'{"hostname": "bank.test", "known-pins": [], "x": 1e999}', "not-json"),
        (b'{"hostname": "bank.test", "known-pins": [], "x": [-1e400]}', "not-json"),
        (b"[" * 100_000, "too-deep"),
        (body(x=nested(MAX_DEPTH)), "too-deep"),
        (b"null", "not-an-object"),
        (b"[]", "not-an-object"),
        (b'"hostname"', "not-an-object"),
        (b"{}", "other-report-type"),
        (b'{"csp-report": {}}', "other-report-type"),
        (body(hostname=None), "no-hostname"),
        (body(hostname=""), "no-hostname"),
        (body(hostname=["bank.test"]), "no-hostname"),
    ],
)
def test_what_is_no_report(text: bytes | str, code: str) -> None:
    with pytest.raises(InvalidReport) as caught:
        parse_report(text)
    assert caught.value.code == code
    assert str(caught.value).endswith(f"({code})")
    assert parse_report.__doc__ is not None
    assert f"``{code}``" in parse_report.__doc__


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b'{"hostname":\n "a', "the first fault is at line 2, column 2"),
        (b"{} {}", "the first fault is at line 1, column 4"),
        (b"", "the first fault is at line 1, column 1"),
        (b'{"x": "\xff"}', "byte 8 is not text in UTF-8"),
        (b'{"x": "\\udfff"}', r"\udfff is half of a surrogate pair, which is no character"),
        (b"1" * 5000, f"{'1' * 20}… is too large a number to store"),
        (b"1e999", "1e999 is too large a number to store"),
        (b"-Infinity", "-Infinity is not a JSON number"),
    ],
)
def test_what_is_wrong_with_a_body_is_told_in_the_senders_words(text: bytes, fault: str) -> None:
    with pytest.raises(InvalidReport) as caught:
        parse_report(text)
    assert caught.value.message == f"the body is not JSON: {fault}"


def test_depth_up_to_the_limit_is_read() -> None:
    assert parse_report(body(x=nested(MAX_DEPTH - 1))).extra == {"x": nested(MAX_DEPTH - 1)}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


names = st.sampled_from(
    [
        "hostname",
        "noted_hostname",
        "port",
        "date_time",
        "effective_expiration_date",
        "include_subdomains",
        "known_pins",
        "served_certificate_chain",
        "validated_certificate_chain",
        "other",
    ]
)


likely = st.one_of(
    json_values,
    st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat),
    st.lists(st.one_of(json_values, st.just(str(ONE)), st.just(f'pin-sha256="{ONE}"')), max_size=3),
    st.binary(max_size=60).map(
        lambda der: [f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"]
    ),
)


@given(st.one_of(json_values.map(json.dumps), st.dictionaries(names, likely).map(lambda members: body(**members))))
def test_any_json_is_a_report_or_an_invalid_report(text: str) -> None:
    try:
        report = parse_report(text)
    except InvalidReport as error:
        assert error.message  # noqa: PT017 - either outcome is right
        return
    # What was read can be grouped, written and read again, and is then the same.
    if report.known_pins or report.served_chain or report.validated_chain:
        assert parse_report(report.to_json()).to_dict() == report.to_dict()
    assert len(grouping_key(report)) == 32
    report.to_json().encode()


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100)))
def test_any_body_is_a_report_or_an_invalid_report(text: bytes | str) -> None:
    with pytest.raises(InvalidReport):
        parse_report(text)


def test_reports_and_their_errors_are_values() -> None:
    report = parse_report(body())
    assert pickle.loads(pickle.dumps(report)) == report
    assert isinstance(report, Report)
    error = pickle.loads(pickle.dumps(InvalidReport("not-json", "no")))
    assert (error.code, error.message) == ("not-json", "no")
    assert report.date_time == datetime(2014, 4, 6, 13, 0, 50, tzinfo=UTC).timestamp()
