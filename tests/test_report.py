"""RFC 7469 §3: the violation report, built strictly; and the bodies of vectors/reports.json."""

from __future__ import annotations

import json
import ssl
from datetime import datetime
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import InvalidReport, KnownPinnedHost, Pin
from dynpin.report import (
    build_report,
    grouping_key,
    load_json,
    parse_report,
    read_report,
    rfc3339,
    unwrap,
)
from dynpin.report.reading import MAX_CERTIFICATE, MAX_CERTIFICATES, MAX_DEPTH, MAX_KNOWN_PINS, MAX_TEXT

from .report_bodies import ONE, TWO, body, chain

NOW = 1_800_000_000.0


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


# -- built ------------------------------------------------------------------------------------------------------------


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


# -- the bodies of vectors/reports.json -------------------------------------------------------------------------------


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
        {"known_pins": [f'pin-sha256="{ONE}"', f'pin-sha256="{Pin(bytes(32))}"']},
        {"validated_certificate_chain": [ssl.DER_cert_to_PEM_cert(chain()[1])]},
        {"validated_certificate_chain": ["?"]},
    ]
    assert {grouping_key(parse_report(body(**members))) for members in same} == {key}
    assert len({key, *(grouping_key(parse_report(body(**members))) for members in other)}) == 1 + len(other)
    assert grouping_key(parse_report(body()), mode="report-only") != key


def test_the_limits() -> None:
    assert (MAX_CERTIFICATES, MAX_KNOWN_PINS, MAX_DEPTH, MAX_TEXT) == (20, 64, 16, 65_536)
    assert MAX_CERTIFICATE > 102_400 * 65 / 48, "a chain of OpenSSL's longest, in lines of 64 characters"
