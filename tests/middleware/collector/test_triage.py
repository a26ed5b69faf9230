"""Triage: each verdict on a report that deserves it, and the real reports of Chrome."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from dynpin import Pin
from dynpin.middleware.collector import Retention
from dynpin.middleware.collector.triage import (
    SEVERITIES,
    VERDICTS,
    Case,
    Diagnosis,
    Roots,
    decode,
    diagnose,
    names_cover,
)
from dynpin.report import Report, read_report, rfc3339
from tests.clock import Clock
from tests.middleware.collector.chains import Issued, authority, nameless
from tests.middleware.collector.conftest import NOW, Start, vector

DAY = 86_400.0
OLD = NOW - 200 * DAY
ROOT = authority("House CA")
MIDDLE = ROOT.issue("House CA 1", ca=True, since=OLD, days=3000)
LEAF = MIDDLE.issue("api.test", since=OLD)
FRESH = MIDDLE.issue("api.test", since=NOW - 2 * DAY)
STRANGER = authority("Friendly Wi-Fi CA")
ATTACK = STRANGER.issue("api.test", since=NOW - 2 * DAY)
MANY_NAMES = STRANGER.issue("n.test", since=OLD, more=[*(f"n{number}.test" for number in range(30)), "api.test"])
# As long as OpenSSL takes a chain.
LONG = STRANGER.issue("api.test", since=OLD, more=[f"{number:0240}.test" for number in range(400)])
# Few clients look at it, and cryptography cannot read it.
TIMESTAMPS = x509.UnrecognizedExtension(ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS, b"damaged")
DAMAGED = STRANGER.issue("api.test", since=OLD, extension=TIMESTAMPS)
# Names that cryptography cannot read.
NAMELESS = nameless(STRANGER.issue("Cafe", since=OLD, more=["api.test"]), STRANGER)
CAFE = authority("Cafe")
NAMELESS_ROOT, OF_NAMELESS = nameless(CAFE, CAFE), nameless(CAFE.issue("api.test", since=OLD), CAFE)
PROXY = authority("Zscaler Root CA")
INSPECTED = PROXY.issue("api.test", since=OLD)
OTHER_ROOT = authority("Other House CA")
OTHER_PIN, THIRD_PIN = str(Pin(b"o" * 32)), str(Pin(b"t" * 32))


def reported(served: list[Issued], validated: list[Issued], pins: list[str], **members: object) -> Report:
    body: dict[str, object] = {
        "date-time": rfc3339(NOW),
        "hostname": "api.test",
        "port": 443,
        "effective-expiration-date": rfc3339(NOW + 30 * DAY),
        "include-subdomains": False,
        "noted-hostname": "api.test",
        "served-certificate-chain": [one.pem for one in served],
        "validated-certificate-chain": [one.pem for one in validated],
        "known-pins": [f'pin-sha256="{pin}"' for pin in pins],
    }
    return read_report(body | {name.replace("_", "-"): value for name, value in members.items()})


def judged(report: Report, **known: Any) -> Diagnosis:
    roots = known.pop("roots", Roots(ROOT.pem.encode(), public=b""))
    return diagnose(Case(report, NOW + 60, known.pop("mode", "enforce"), roots, **known))


SOUND = ([LEAF, MIDDLE], [LEAF, MIDDLE, ROOT])
PINS = [OTHER_PIN, THIRD_PIN]
CASES: dict[str, tuple[str, Callable[[], Diagnosis]]] = {
    "a sound old chain without a pin": ("wrong-pin-set", lambda: judged(reported(*SOUND, PINS))),
    "a certificate of yesterday": (
        "renewal-new-key",
        lambda: judged(reported([FRESH, MIDDLE], [FRESH, MIDDLE, ROOT], PINS)),
    ),
    "the pinned root is served and not in the path": (
        "path-variance",
        lambda: judged(
            reported(
                [LEAF, MIDDLE, OTHER_ROOT.cross_sign(ROOT), OTHER_ROOT],
                [LEAF, MIDDLE, ROOT],
                [OTHER_ROOT.pin, THIRD_PIN],
            )
        ),
    ),
    "an attacker who sends the true certificate along": (
        "unknown-ca",
        lambda: judged(reported([ATTACK, LEAF, MIDDLE], [ATTACK, STRANGER], [LEAF.pin, THIRD_PIN])),
    ),
    "a root that nobody knows": ("unknown-ca", lambda: judged(reported([ATTACK], [ATTACK, STRANGER], PINS))),
    "a root that nobody knows, for many other hosts first": (
        "unknown-ca",
        lambda: judged(reported([MANY_NAMES], [MANY_NAMES, STRANGER], PINS)),
    ),
    "a root that nobody knows, with a long certificate": (
        "unknown-ca",
        lambda: judged(reported([LONG], [LONG, STRANGER], PINS)),
    ),
    "a root that nobody knows, with an extension that is damaged": (
        "unknown-ca",
        lambda: judged(reported([DAMAGED], [DAMAGED, STRANGER], PINS)),
    ),
    "a root that nobody knows, and a leaf whose name cannot be read": (
        "unknown-ca",
        lambda: judged(reported([NAMELESS], [NAMELESS, STRANGER], PINS)),
    ),
    "a root that nobody knows, and whose name cannot be read": (
        "unknown-ca",
        lambda: judged(reported([OF_NAMELESS], [OF_NAMELESS, NAMELESS_ROOT], PINS)),
    ),
    "a root of the operator whose name cannot be read": (
        "wrong-pin-set",
        lambda: judged(
            reported([OF_NAMELESS], [OF_NAMELESS, NAMELESS_ROOT], PINS),
            roots=Roots(NAMELESS_ROOT.pem.encode(), public=b""),
        ),
    ),
    "a root that inspects": (
        "private-root",
        lambda: judged(reported([INSPECTED], [INSPECTED, PROXY], PINS)),
    ),
    "the pinned CA was seen before": (
        "retired-intermediate",
        lambda: judged(
            reported(*SOUND, [OTHER_ROOT.pin, THIRD_PIN]),
            seen={Pin.from_base64(OTHER_ROOT.pin): "Other House CA"},
        ),
    ),
    "a key of the inventory that the client does not know": (
        "stale-policy",
        lambda: judged(reported(*SOUND, PINS), keys={Pin.from_base64(LEAF.pin): "tls/new.key"}),
    ),
    "a key outside the inventory under a known root": (
        "foreign-key",
        lambda: judged(reported(*SOUND, PINS), keys={Pin.from_base64(OTHER_PIN): "tls/old.key"}),
    ),
    "an entry that had run out": (
        "stale-policy",
        lambda: judged(reported(*SOUND, PINS, effective_expiration_date=rfc3339(NOW - DAY))),
    ),
    "a time in the future": ("clock-skew", lambda: judged(reported(*SOUND, PINS, date_time=rfc3339(NOW + 90 * DAY)))),
    "a time before the certificate": (
        "clock-skew",
        lambda: judged(reported(*SOUND, PINS, date_time=rfc3339(OLD - DAY))),
    ),
    "a pin that is in the validated chain": (
        "inconsistent",
        lambda: judged(reported(*SOUND, [MIDDLE.pin, OTHER_PIN])),
    ),
    "a chain that is not signed": (
        "inconsistent",
        lambda: judged(reported([ATTACK], [ATTACK, ROOT], PINS)),
    ),
    "another leaf served than validated": (
        "inconsistent",
        lambda: judged(reported([ATTACK], [LEAF, MIDDLE, ROOT], PINS)),
    ),
    "a noted host beside": ("inconsistent", lambda: judged(reported(*SOUND, PINS, noted_hostname="other.test"))),
    "a superdomain without includeSubDomains": (
        "inconsistent",
        lambda: judged(reported(*SOUND, PINS, noted_hostname="test")),
    ),
    "a certificate for another host": (
        "inconsistent",
        lambda: judged(reported(*SOUND, PINS, hostname="b.test", noted_hostname="b.test")),
    ),
    "no pins": ("undecided", lambda: judged(reported(*SOUND, []))),
    "no chains": ("undecided", lambda: judged(reported([], [], PINS))),
    "the validated chain is missing": ("undecided", lambda: judged(reported([LEAF], [], PINS))),
}


@pytest.mark.parametrize("case", CASES)
def test_each_verdict(case: str) -> None:
    wanted, judge = CASES[case]
    found = judge()
    assert found.verdict == wanted, found.reasons
    assert found.reasons


def test_every_verdict_is_tried_and_has_a_severity() -> None:
    assert {wanted for wanted, _ in CASES.values()} == VERDICTS.keys()
    assert {verdict.severity for verdict in VERDICTS.values()} == SEVERITIES.keys()


def test_a_cross_signed_path_is_no_contradiction() -> None:
    crossed = OTHER_ROOT.cross_sign(ROOT)
    report = reported([LEAF, MIDDLE, crossed, OTHER_ROOT], [LEAF, MIDDLE, ROOT], [OTHER_ROOT.pin, THIRD_PIN])
    found = judged(report)
    assert found.verdict == "path-variance"
    assert found.failing == 2


def test_the_failing_certificate_is_named() -> None:
    assert judged(reported([ATTACK], [ATTACK, STRANGER], PINS)).failing == 1
    assert judged(reported([ATTACK], [ATTACK, ROOT], PINS)).failing == 0
    assert judged(reported(*SOUND, PINS)).failing == 0


def with_marks(sound: Issued, by: Issued) -> Issued:
    """The certificate with what public CAs put in, which anybody can: policies, and where to ask for revocation."""
    policy = x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), None)
    ocsp = x509.AccessDescription(
        AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://ocsp.test")
    )
    builder = (
        x509.CertificateBuilder(
            issuer_name=by.certificate.subject,
            subject_name=sound.certificate.subject,
            public_key=sound.certificate.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=datetime.fromtimestamp(NOW - DAY, UTC),
            not_valid_after=datetime.fromtimestamp(NOW, UTC) + timedelta(days=90),
        )
        .add_extension(x509.CertificatePolicies([policy]), critical=False)
        .add_extension(x509.AuthorityInformationAccess([ocsp]), critical=False)
    )
    return Issued(builder.sign(by.key, SHA256()), sound.key)


MARKED = with_marks(ATTACK, STRANGER)
MARKED_REPORT = reported([MARKED], [MARKED, STRANGER], PINS)


@pytest.mark.parametrize(
    ("days", "before", "kind", "verdict"),
    [
        (0, None, "unknown", "unknown-ca"),
        # Its CA was unknown while it was valid, and stays unknown.
        (400, "unknown", "unknown", "unknown-ca"),
        (400, None, "retired", "renewal-new-key"),
        (400, "retired", "retired", "renewal-new-key"),
        # The stores have let the root go since.
        (0, "public", "retired", "renewal-new-key"),
    ],
)
def test_the_marks_of_a_public_ca_hide_no_stranger(days: int, before: str | None, kind: str, verdict: str) -> None:
    roots = Roots(public=b"", as_of=NOW + days * DAY)
    found = judged(MARKED_REPORT, roots=roots, root_before=before)
    assert (found.root, found.verdict) == (kind, verdict)


def test_a_root_that_is_known_now_is_known_whatever_it_was() -> None:
    assert judged(MARKED_REPORT, roots=Roots(STRANGER.pem.encode(), b""), root_before="unknown").root == "own"


def test_a_stranger_is_no_public_ca_when_it_is_judged_anew_after_its_end(site: Start) -> None:
    running = site()
    running.post(MARKED_REPORT.to_dict())
    assert [group["verdict"] for group in running.groups()] == ["unknown-ca"]
    # Another inventory has everything judged anew, when the certificate has long expired.
    much = Retention(days=1000)
    later = site(file=running.file, clock=Clock(NOW + 400 * DAY), roots=ROOT.pem.encode(), retention=much)
    assert [(group["verdict"], group["diagnosis"]["root"]) for group in later.groups()] == [("unknown-ca", "unknown")]


def test_the_real_report_of_chrome_with_the_wrong_pin() -> None:
    found = diagnose(
        Case(read_report(vector("real-chrome-ciscodude")["body"]), 1_454_381_122.0, "report-only", Roots())
    )
    assert found.verdict == "wrong-pin-set"
    assert found.report_only_inferred
    assert found.reasons[0] == "No certificate of the chain has a pinned key: 3 in the path, 2 served."
    assert [one.signed_by_next for one in found.validated] == [True, True, None]
    assert found.root == "retired"  # GeoTrust Global CA, which no store has any more


def test_the_real_report_of_chrome_that_is_a_false_alarm() -> None:
    found = diagnose(Case(read_report(vector("real-chrome-yubico")["body"]), 1_473_146_346.0, "enforce", Roots()))
    assert (found.verdict, found.severity) == ("path-variance", "false-alarm")
    assert "Go Daddy Class 2 Certification Authority" in found.reasons[0]
    assert found.report_only_inferred
    assert any("Its report-uri says enforce" in note for note in found.notes)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_no_text_breaks_decoding(text: str) -> None:
    assert decode(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----").fault


@given(st.integers(min_value=0, max_value=500), st.integers(min_value=0, max_value=255))
def test_a_damaged_certificate_never_raises(position: int, value: int) -> None:
    der = bytearray(LEAF.certificate.public_bytes(Encoding.DER))
    der[position % len(der)] = value
    damaged = ssl.DER_cert_to_PEM_cert(bytes(der))
    report = reported([], [], PINS, served_certificate_chain=[damaged], validated_certificate_chain=[damaged, ROOT.pem])
    assert judged(report).verdict in VERDICTS


@pytest.mark.parametrize(
    ("names", "host", "covers"),
    [
        (["a.test"], "a.test", True),
        (["*.test"], "a.test", True),
        (["*.test"], "b.a.test", False),
        (["A.Test."], "a.test", True),
        (["*.a.test"], "a.test", False),
    ],
)
def test_names(names: list[str], host: str, covers: bool) -> None:
    assert names_cover(names, host) is covers


def test_the_verdict_comes_with_the_group(site: Start) -> None:
    running = site(roots=ROOT.pem.encode())
    running.post(vector("real-chrome-yubico")["body"])
    (group,) = running.groups()
    assert (group["verdict"], group["issuer"]) == ("path-variance", "Go Daddy Secure Certificate Authority - G2")
    assert [one["matches"] for one in group["diagnosis"]["served"]] == [False, False, False, True]
    assert running.groups("verdict=path-variance&mode!=report-only") == [group]
    assert running.groups("verdict!=path-variance") == []


def test_an_intermediate_of_an_earlier_report_is_recognised(site: Start) -> None:
    running = site(roots=ROOT.pem.encode())
    gone = ROOT.issue("House CA 0", ca=True, since=OLD, days=3000)
    leaf = gone.issue("api.test", since=OLD)
    running.post(reported([leaf, gone], [leaf, gone, ROOT], PINS).to_dict())
    running.post(reported(*SOUND, [gone.pin, THIRD_PIN]).to_dict())
    assert {group["verdict"] for group in running.groups()} == {"wrong-pin-set", "retired-intermediate"}


def test_all_names_of_a_certificate_count_and_the_page_says_how_many_there_are() -> None:
    found = judged(reported([MANY_NAMES], [MANY_NAMES, STRANGER], PINS))
    assert (len(found.validated[0].names), found.validated[0].more_names) == (20, 12)
    found = judged(reported([DAMAGED], [DAMAGED, STRANGER], PINS))
    assert found.validated[0].fault.startswith("its extensions cannot be read")
    assert any("its extensions cannot be read" in note for note in found.notes)
