"""RFC 7469 §3: the violation report, built strictly and read leniently."""

from __future__ import annotations

import base64
import json
import pickle
import ssl
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import InvalidReport, KnownPinnedHost, Pin, Report
from dynpin.report import (
    ReportedRecovery,
    build_report,
    grouping_key,
    load_json,
    parse_report,
    read_report,
    rfc3339,
    unwrap,
)
from dynpin.report.reading import MAX_CERTIFICATES, MAX_DEPTH, MAX_KNOWN_PINS, MAX_TEXT

NOW = 1_800_000_000.0
ONE, TWO = (Pin(bytes([number]) * 32) for number in (1, 2))
KNOWN = KnownPinnedHost("bank.test", (ONE, TWO), True, "https://r.example/", NOW - 1000, NOW + 1000)


class Normalised(TypedDict):
    """What another collector made of a body."""

    date_time: str
    hostname: str
    port: int
    noted_hostname: str
    include_subdomains: bool
    known_pins: list[str]


class Derived(TypedDict):
    """What follows from a body: the pins of its certificates."""

    served_pins: list[str]
    validated_pins: list[str]


class Request(TypedDict):
    """One request of vectors/reports.json; its body is JSON that is decoded, or text that is not JSON."""

    id: str
    body: NotRequired[object]
    normalised: NotRequired[Normalised]
    derived: NotRequired[Derived]


def _requests() -> dict[str, Request]:
    loaded: dict[str, list[Request]] = json.loads((Path(__file__).parent / "vectors/reports.json").read_text())
    return {request["id"]: request for request in loaded["requests"]}


REQUESTS = _requests()


@cache
def chain() -> tuple[bytes, bytes]:
    """Two DER certificates."""
    keys: dict[str, list[dict[str, str]]] = json.loads((Path(__file__).parent / "vectors/spki.json").read_text())
    leaf, issuer = (ssl.PEM_cert_to_DER_cert(keys["keys"][number]["certificate"]) for number in (2, 0))
    return leaf, issuer


def body(**members: object) -> str:
    """A report without fault, but for the members that are given; None leaves one out."""
    report: dict[str, object] = {
        "date-time": "2014-04-06T13:00:50Z",
        "hostname": "www.bank.test",
        "port": 443,
        "effective-expiration-date": "2014-05-01T12:40:50Z",
        "include-subdomains": False,
        "noted-hostname": "bank.test",
        "served-certificate-chain": [ssl.DER_cert_to_PEM_cert(der) for der in chain()[:1]],
        "validated-certificate-chain": [ssl.DER_cert_to_PEM_cert(der) for der in chain()],
        "known-pins": [f'pin-sha256="{ONE}"', f'pin-sha256="{TWO}"'],
    }
    report |= {name.replace("_", "-"): value for name, value in members.items()}
    return json.dumps({name: value for name, value in report.items() if value is not None})


# -- built ----------------------------------------------------------------------------------------------------------


def test_a_report_says_what_section_3_asks_for() -> None:
    report = build_report(
        host="www.bank.test", port=8443, known_host=KNOWN, served=chain()[:1], validated=chain(), now=NOW
    )
    pem = [ssl.DER_cert_to_PEM_cert(der) for der in chain()]
    assert json.loads(report.to_json()) == {
        "date-time": "2027-01-15T08:00:00Z",
        "hostname": "www.bank.test",
        "port": 8443,
        "effective-expiration-date": "2027-01-15T08:16:40Z",
        "include-subdomains": True,
        "noted-hostname": "bank.test",
        "served-certificate-chain": pem[:1],
        "validated-certificate-chain": pem,
        "known-pins": [f'pin-sha256="{ONE}"', f'pin-sha256="{TWO}"'],
    }
    assert report.flags == ()


pins = st.binary(min_size=32, max_size=32).map(Pin)
moments = st.integers(-62_135_596_800, 253_402_300_799).map(float)


@given(
    st.builds(
        KnownPinnedHost,
        st.sampled_from(["bank.test", "test", "xn--bcher-kva.example"]),
        st.lists(pins, min_size=1, max_size=MAX_KNOWN_PINS, unique=True).map(tuple),
        st.booleans(),
        st.none(),
        moments,
        moments,
    ),
    st.sampled_from(["www.bank.test", "bank.test"]),
    st.integers(1, 65535),
    st.integers(1, 2),
    moments,
)
def test_what_is_built_reads_back_the_same(
    known: KnownPinnedHost, host: str, port: int, served: int, now: float
) -> None:
    report = build_report(host=host, port=port, known_host=known, served=chain()[:served], validated=chain(), now=now)
    assert parse_report(report.to_json()) == report
    assert parse_report(report.to_json().encode()) == report


def test_what_is_not_known_is_said_as_such() -> None:
    static = KnownPinnedHost("bank.test", (ONE,), False, None, NOW, None, "static")
    report = build_report(host="bank.test", port=None, known_host=static, served=[], validated=chain(), now=NOW)
    members = json.loads(report.to_json())
    assert members["port"] is None
    assert members["effective-expiration-date"] is None
    read = parse_report(report.to_json())
    assert (read.port, read.effective_expiration_date) == (None, None)
    assert set(read.flags) == {"no-port", "no-expiration", "no-served-chain"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1396789250, "2014-04-06T13:00:50Z"),
        (1396789250.999, "2014-04-06T13:00:50Z"),
        (-62_135_596_800, "0001-01-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        # Beyond the calendar: a pin that is to last for ever.
        (-1e18, "0001-01-01T00:00:00Z"),
        (1e18, "9999-12-31T23:59:59Z"),
        (float("inf"), "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text


# -- the bodies of vectors/reports.json ----------------------------------------------------------------------------

MUTATED = {"no-served-chain", "no-validated-chain"}
# What comes of each body: the flags of the report that is read, or the code of InvalidReport.
OUTCOMES: dict[str, set[str] | str] = {
    "real-chrome-ciscodude": set(),
    "real-chrome-yubico": set(),
    "rfc-example-truncated-pem": {"no-noted-hostname", "bad-certificate"},
    "rfc-example-as-printed": "not-json",
    "relay-type-detect-csp": "other-report-type",
    "lookout-legacy-1": {"bad-certificate", "no-noted-hostname"},
    "lookout-reporting-api-batch": "not-an-object",
    "tam7t-bare-pins": {"bare-known-pins", "bad-certificate"},
    "mach-zero-max-age": {"bad-expiration", "bad-certificate"},
    "m-missing-hostname": "no-hostname",
    "m-missing-date-time": MUTATED | {"no-date-time"},
    "m-unknown-key": MUTATED | {"unknown-members"},
    "m-port-string": MUTATED | {"port-as-text"},
    "m-port-out-of-range": MUTATED | {"bad-port"},
    "m-bad-date": MUTATED | {"bad-date-time"},
    "m-pin-short": MUTATED | {"bad-known-pin"},
    "m-deep-json": MUTATED | {"unknown-members"},
    "m-sql-injection-hostname": MUTATED | {"bad-hostname"},
    "h-not-json": "not-json",
    "h-empty-body": "not-json",
    "h-get": "not-json",
    "h-options-preflight": "not-json",
    "h-bigbank-crash": MUTATED,
}


def test_every_body_has_an_outcome() -> None:
    assert OUTCOMES.keys() == REQUESTS.keys()


def text_of(request: Request) -> str:
    content = request.get("body", "")
    return content if isinstance(content, str) else json.dumps(content)


@pytest.mark.parametrize("name", list(OUTCOMES))
def test_outcome(name: str) -> None:
    request, expected = REQUESTS[name], OUTCOMES[name]
    if isinstance(expected, str):
        with pytest.raises(InvalidReport) as caught:
            parse_report(text_of(request))
        assert caught.value.code == expected
        return
    report = parse_report(text_of(request))
    assert set(report.flags) == expected
    if "normalised" in request and "noted_hostname" in request["normalised"]:
        normalised = request["normalised"]
        assert report.date_time == datetime.fromisoformat(normalised["date_time"]).timestamp()
        assert report.hostname == normalised["hostname"]
        assert report.port == normalised["port"]
        assert report.noted_hostname == normalised["noted_hostname"]
        assert report.include_subdomains == normalised["include_subdomains"]
        assert [str(pin) for pin in report.known_pins] == normalised["known_pins"]
    if "derived" in request:
        derived = request["derived"]
        assert [str(Pin.from_certificate(pem)) for pem in report.served_chain] == derived["served_pins"]
        assert [str(Pin.from_certificate(pem)) for pem in report.validated_chain] == derived["validated_pins"]


def test_what_is_odd_is_kept() -> None:
    assert parse_report(text_of(REQUESTS["m-unknown-key"])).extra == {"failure-mode": "enforce"}
    assert parse_report(text_of(REQUESTS["m-deep-json"])).extra == {"x": {"a": {"b": {"c": {}}}}}
    assert parse_report(text_of(REQUESTS["m-sql-injection-hostname"])).hostname.endswith("DROP TABLE reports;--")
    assert [str(pin) for pin in parse_report(text_of(REQUESTS["tam7t-bare-pins"])).known_pins] == [
        "LvRiGEjRqfzurezaWuj8Wie2gyHMrW5Q06LspMnox7A="
    ]


def test_the_rfc_s_own_example_is_not_json() -> None:
    """Figure 8 lacks a comma, breaks lines inside strings and quotes one of them with apostrophes."""
    printed = text_of(REQUESTS["rfc-example-as-printed"])
    assert "'pin-sha256=" in printed
    with pytest.raises(InvalidReport, match="not-json"):
        parse_report(printed)


def test_an_envelope_is_unwrapped() -> None:
    reports = unwrap(load_json(text_of(REQUESTS["lookout-reporting-api-batch"])))
    csp, hpkp, nel = reports
    assert read_report(hpkp).hostname == "www.example.com"
    disguised: dict[str, object] = {"type": "csp", "body": json.loads(body())}
    for other in (csp, nel, *unwrap(disguised), *unwrap({"type": "hpkp"})):
        with pytest.raises(InvalidReport, match="other-report-type"):
            read_report(other)


def test_reports_of_one_cause_group_together() -> None:
    key = grouping_key(parse_report(body()))
    same: list[dict[str, object]] = [
        {"date_time": "2020-01-01T00:00:00Z", "effective_expiration_date": None},
        {"known_pins": [f'pin-sha256="{TWO}"', f'pin-sha256="{ONE}"']},
        {"served_certificate_chain": []},
        {"include_subdomains": True, "failure_mode": "enforce"},
        {"hostname": "WWW.bank.test."},
    ]
    other: list[dict[str, object]] = [
        {"hostname": "bank.test"},
        {"noted_hostname": "test"},
        {"port": 8443},
        {"known_pins": [f'pin-sha256="{ONE}"']},
        {"validated_certificate_chain": [ssl.DER_cert_to_PEM_cert(chain()[1])]},
        {"validated_certificate_chain": ["?"]},
    ]
    assert {grouping_key(parse_report(body(**members))) for members in same} == {key}
    assert len({key, *(grouping_key(parse_report(body(**members))) for members in other)}) == 1 + len(other)
    assert grouping_key(parse_report(body()), mode="report-only") != key


def test_the_limits() -> None:
    assert (MAX_CERTIFICATES, MAX_KNOWN_PINS, MAX_DEPTH, MAX_TEXT) == (20, 64, 16, 65_536)


# -- member by member ----------------------------------------------------------------------------------------------

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
    ({"served_certificate_chain": [LONG]}, {"bad-certificate"}, {"served_chain": (LONG[:-1],)}),
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
        # Python reads them as infinite, and would write what is no JSON.
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
