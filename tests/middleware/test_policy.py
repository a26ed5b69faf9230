"""Policy: the header of a site's keys, and what is refused of it because it would harm."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from dynpin import KnownPinnedHost, Pin, PolicyError, PublicKeyPins
from dynpin.hosts import applicable
from dynpin.middleware import Policy
from tests.middleware.conftest import HOST, REPORTS, Site, chain_pem

DAY = 86_400


def test_the_header_of_two_files(site: Site) -> None:
    policy = Policy(keys=site.chain, backups=[site.backup], max_age=timedelta(days=30))
    assert str(policy.header) == site.expected("max-age=2592000")
    assert policy.field == (b"public-key-pins", site.expected("max-age=2592000").encode())
    assert policy.text_field == ("Public-Key-Pins", site.expected("max-age=2592000"))


def test_every_directive(site: Site) -> None:
    policy = Policy(**site.options, include_subdomains=True, report_uri=REPORTS)
    assert str(policy.header) == site.expected(f'max-age=3600; includeSubDomains; report-uri="{REPORTS}"')


def test_report_only_has_no_max_age(site: Site) -> None:
    policy = Policy(keys=site.chain, backups=site.backup, report_uri=REPORTS, mode="report-only")
    assert policy.field == (b"public-key-pins-report-only", site.expected(f'report-uri="{REPORTS}"').encode())


def test_unpin_sends_max_age_0_with_what_was_pinned(site: Site) -> None:
    # Chromium took max-age=0 with pins alone, and only for an entry that it could find.
    policy = Policy(**site.options, include_subdomains=True, report_uri=REPORTS, mode="unpin")
    assert str(policy.header) == site.expected("max-age=0; includeSubDomains")


def test_to_unpin_no_backup_is_needed(site: Site) -> None:
    policy = Policy(keys=site.chain, mode="unpin")
    assert str(policy.header) == f'pin-sha256="{site.pins[0]}"; max-age=0'


# -- what keys= and backups= take ------------------------------------------------------------------------------------


def _csr(site: Site) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def _der(site: Site) -> bytes:
    certificate = x509.load_pem_x509_certificate(site.chain.read_bytes())
    return certificate.public_bytes(serialization.Encoding.DER)


SOURCES: dict[str, Callable[[Site], Any]] = {
    "a path": lambda site: site.chain,
    "a path as str": lambda site: str(site.chain),
    "PEM as bytes": lambda site: site.chain.read_bytes(),
    "PEM as str": lambda site: site.chain.read_text(),
    "DER": _der,
    "a list of one": lambda site: [site.chain],
    "the private key": lambda site: site.key,
    "key and chain in one file": lambda site: site.key.read_bytes() + site.chain.read_bytes(),
    "a pin": lambda site: site.pins[0],
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_keys_as_the_operator_has_them(source: Callable[[Site], Any], site: Site) -> None:
    assert str(Policy(keys=source(site), backups=site.backup, max_age=3600).header) == site.expected()


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_backups_as_the_operator_has_them(source: Callable[[Site], Any], site: Site) -> None:
    header = Policy(keys=site.backup, backups=source(site), max_age=3600).header
    assert header is not None
    assert header.pins == site.pins[::-1]


def test_a_backup_may_be_a_csr(site: Site) -> None:
    csr = _csr(site)
    header = Policy(keys=site.chain, backups=[csr], max_age=3600).header
    assert header is not None
    assert header.pins == (site.pins[0], Pin.from_csr(csr))


def test_two_chains_side_by_side_are_both_pinned(site: Site, tmp_path: Path) -> None:
    rsa = tmp_path / "rsa.pem"
    rsa.write_bytes(chain_pem(site.issue(key_type=trustme.KeyType.RSA)))
    header = Policy(keys=[site.chain, rsa], backups=site.backup, max_age=3600).header
    assert header is not None
    assert header.pins == (site.pins[0], Pin.from_file(rsa), site.pins[1])


@pytest.fixture
def long_chain(site: Site, authority: trustme.CA) -> list[Pin]:
    """The pins of a deployed chain of leaf, intermediate and root."""
    intermediate = authority.create_child_ca()
    leaf = intermediate.issue_cert(HOST)
    site.chain.write_bytes(chain_pem(leaf, authority))
    pems = [leaf.cert_chain_pems[0], intermediate.cert_pem, authority.cert_pem]
    return [Pin.from_certificate(pem.bytes()) for pem in pems]


@pytest.mark.parametrize(
    ("pinned", "numbers"), [("leaf", [0]), ("chain", [0, 1, 2]), (1, [1]), ((0, 2), [0, 2]), ([2, 0], [2, 0])]
)
def test_which_certificates_are_pinned(pinned: Any, numbers: list[int], site: Site, long_chain: list[Pin]) -> None:
    header = Policy(**site.options, pinned=pinned).header
    assert header is not None
    assert header.pins == (*(long_chain[number] for number in numbers), site.pins[1])


def test_a_pin_of_the_chain_is_no_backup(site: Site, long_chain: list[Pin]) -> None:
    with pytest.raises(PolicyError, match="A key of the chain is not a backup key"):
        Policy(keys=site.chain, backups=[long_chain[1], site.backup], max_age=60)
    with pytest.raises(PolicyError, match="is the key of certificate 1 of"):
        Policy(keys=site.chain, backups=[long_chain[1]], max_age=60)


def test_paths_hold_when_the_server_leaves_its_folder(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.folder)
    policy = Policy(keys="fullchain.pem", backups="backup.pub", max_age=3600)
    monkeypatch.chdir("/")
    site.back_up(site.issue())
    assert policy.refresh()
    assert str(policy.header) == site.expected()


# -- what is refused -------------------------------------------------------------------------------------------------


def _absent(site: Site) -> Path:
    return site.folder / "absent.pem"


def _cut(site: Site) -> Path:
    file = site.folder / "cut.pem"
    file.write_bytes(site.chain.read_bytes()[:400])
    return file


def _nothing(site: Site) -> Path:
    file = site.folder / "nothing.pem"
    file.write_text("hello")
    return file


def _pipe(site: Site) -> Path:
    file = site.folder / "pipe"
    os.mkfifo(file)
    return file


# What is given instead of a sound policy's options, and what the message must say: what, which file, and what next.
REFUSED: dict[str, tuple[Callable[[Site], dict[str, Any]], list[str]]] = {
    "no keys": (lambda site: {"keys": []}, ["no pin of the deployed chain", "fullchain.pem", "§2.5"]),
    "nothing pinned": (lambda site: {"pinned": ()}, ["no pin of the deployed chain"]),
    "no such certificate": (lambda site: {"pinned": 7}, ["pinned=7", "fullchain.pem", "certificate 7"]),
    "a certificate before the leaf": (lambda site: {"pinned": -1}, ["pinned=-1", "counted from 0"]),
    "pinned what": (lambda site: {"pinned": "root"}, ["pinned= 'root'", "'leaf', 'chain'"]),
    "chain absent": (lambda site: {"keys": _absent(site)}, ["absent.pem cannot be read", "keys[0]"]),
    "backup absent": (lambda site: {"backups": [_absent(site)]}, ["absent.pem cannot be read", "backups[0]"]),
    "a folder": (lambda site: {"keys": site.folder}, ["tls cannot be read", "keys[0]"]),
    "a name that no file has": (lambda site: {"keys": "a\0b"}, ["keys[0] names no file"]),
    "chain cut off": (lambda site: {"keys": _cut(site)}, ["cut.pem: the PEM block CERTIFICATE is damaged"]),
    "backup without a key": (lambda site: {"backups": [_nothing(site)]}, ["nothing.pem: neither PEM nor DER"]),
    "PEM without a key": (
        lambda site: {"backups": b"-----BEGIN X-----\n-----END X-----\n"},
        ["backups[0]: nothing that can be pinned"],
    ),
    "no backup": (lambda site: {"backups": []}, ["there is no Backup Pin", "backups=", "dynpin keys new", "§4.3"]),
    "the deployed key as backup": (
        lambda site: {"backups": [site.chain]},
        ["all Backup Pins are in", "fullchain.pem is the key of certificate 0 of", "on_invalid='silence'"],
    ),
    "backup missing in report-only": (
        lambda site: {"backups": [], "mode": "report-only", "report_uri": REPORTS},
        ["there is no Backup Pin"],
    ),
    "the key of the chain beside": (
        lambda site: {"keys": [site.chain, site.backup]},
        ["backup.pub is the key of certificate 0 of"],
    ),
    "max_age missing": (lambda site: {"max_age": None}, ["max_age= is missing", "timedelta(days=30)"]),
    "max_age negative": (lambda site: {"max_age": -1}, ["max_age=-1", "whole number of seconds"]),
    "max_age below a second": (
        lambda site: {"max_age": timedelta(milliseconds=1500)},
        ["max_age=datetime.timedelta(seconds=1, microseconds=500000)", "whole number of seconds"],
    ),
    "max_age as float": (lambda site: {"max_age": 3600.0}, ["max_age=3600.0", "whole number of seconds"]),
    "max_age as text": (lambda site: {"max_age": "3600"}, ["max_age='3600'", "timedelta"]),
    "max_age as bool": (lambda site: {"max_age": True}, ["max_age=True"]),
    "max_age 0": (lambda site: {"max_age": 0}, ["max_age=0", "mode='unpin'"]),
    "max_age over 60 days": (
        lambda site: {"max_age": 60 * DAY + 1},
        ["max_age= is 60 days", "allow_long_max_age=True", "§4.1"],
    ),
    "max_age in milliseconds": (lambda site: {"max_age": 30 * DAY * 1000}, ["82 years", "allow_long_max_age=True"]),
    "max_age beyond time": (lambda site: {"max_age": 10**30}, ["allow_long_max_age"]),
    "unknown mode": (lambda site: {"mode": "enforced"}, ["mode= 'enforced'", "'enforce', 'report-only', 'unpin'"]),
    "unknown on_invalid": (lambda site: {"on_invalid": "ignore"}, ["on_invalid 'ignore'", "'raise', 'silence'"]),
    "report-only to nobody": (lambda site: {"mode": "report-only"}, ["report_uri=", "§2.1.4"]),
    "report-uri relative": (lambda site: {"report_uri": "/report"}, ["'/report' is not an absolute http or https URI"]),
    "report-uri of another scheme": (lambda site: {"report_uri": "ftp://a.example/"}, ["not an absolute http"]),
    "report host of no form": (lambda site: {"report_uri": "https://a..example/"}, ["a..example", "not a host name"]),
    "hosts of no form": (lambda site: {"report_uri": REPORTS, "hosts": "a b"}, ["bank.test", "not for a b"]),
    "report host unknown": (
        lambda site: {"keys": site.pins[0], "report_uri": REPORTS},
        ["cannot find out", "hosts=["],
    ),
    "report host unknown to a key file": (
        lambda site: {"keys": site.key, "report_uri": REPORTS},
        ["cannot find out", "hosts=["],
    ),
    "too many pins": (
        lambda site: {"backups": [Pin(bytes([number] * 32)) for number in range(64)]},
        ["65 pins, but the limit is 64"],
    ),
    "a pipe that nobody writes to": (
        lambda site: {"keys": _pipe(site)},
        ["pipe cannot be read (nothing writes to this pipe"],
    ),
    "a file without an end": (lambda site: {"backups": "/dev/zero"}, ["/dev/zero cannot be read (it is larger than"]),
    "a pipe for roots": (
        lambda site: {"roots": _pipe(site)},
        ["pipe, which roots names", "nothing writes to this pipe"],
    ),
    "a pipe to remember in": (lambda site: {"remember": _pipe(site)}, ["pipe, which keeps the last header", "be read"]),
    "roots without a certificate": (
        lambda site: {"roots": site.backup},
        ["backup.pub, which roots names, holds a key"],
    ),
    "roots absent": (
        lambda site: {"roots": _absent(site)},
        ["absent.pem, which roots names, holds no roots", "(No such file"],
    ),
    "keys of no kind": (lambda site: {"keys": None}, ["keys= contains a value of type NoneType"]),
    "backups of no kind": (lambda site: {"backups": [[site.backup]]}, ["backups= contains a value of type list"]),
    "hosts of no kind": (lambda site: {"hosts": ["bank.test", 3]}, ["hosts= contains a value of type int"]),
    "roots of no kind": (lambda site: {"roots": [None]}, ["roots= contains a value of type NoneType"]),
    "a report-uri of no kind": (lambda site: {"report_uri": 5}, ["report_uri=5 is not a text"]),
    "a flag as a text": (lambda site: {"include_subdomains": "false"}, ["include_subdomains='false' is neither"]),
    "leave as a text": (lambda site: {"allow_long_max_age": "no"}, ["allow_long_max_age='no' is neither"]),
    "pinned as bool": (lambda site: {"pinned": True}, ["pinned=True is not understood"]),
    "pinned as nothing": (lambda site: {"pinned": None}, ["pinned=None is not understood"]),
    "pinned as a list of texts": (lambda site: {"pinned": ["leaf"]}, ["pinned=['leaf'] is not understood"]),
    "an address alone": (lambda site: {"hosts": ["127.0.0.1", "::1"]}, ["hosts= has only IP addresses", "§2.3.3"]),
    "the certificate of an address": (
        lambda site: {"keys": chain_pem(site.issue("127.0.0.1"))},
        ["keys[0] has no DNS name", "§2.3.3"],
    ),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(change: Callable[[Site], dict[str, Any]], words: list[str], site: Site) -> None:
    Policy(**site.options)
    with pytest.raises(PolicyError) as refusal:
        Policy(**{**site.options, **change(site)})
    assert not [word for word in words if word not in str(refusal.value)], str(refusal.value)


def test_sixty_days_need_no_consent(site: Site) -> None:
    header = Policy(**{**site.options, "max_age": timedelta(days=60)}).header
    assert header is not None
    assert header.max_age == 60 * DAY


@pytest.mark.parametrize("mode", ["enforce", "unpin"])
def test_a_long_max_age_by_consent(mode: Any, site: Site) -> None:
    header = Policy(**{**site.options, "max_age": timedelta(days=365)}, mode=mode, allow_long_max_age=True).header
    assert header is not None
    assert header.max_age == (365 * DAY if mode == "enforce" else 0)


# The names of the deployed certificate or hosts=, includeSubDomains, the host of the report-uri, whether it is refused.
REPORT_HOSTS = [
    (["bank.test"], [], False, "bank.test", True),
    (["bank.test"], [], False, "BANK.test.", True),
    (["bank.test"], [], False, "reports.bank.test", False),
    (["bank.test"], [], True, "reports.bank.test", True),
    (["bank.test"], [], True, "reportsbank.test", False),
    (["www.bank.test"], [], True, "bank.test", False),
    (["a.test", "b.test"], [], False, "b.test", True),
    (["*.bank.test"], [], False, "reports.bank.test", True),
    (["*.bank.test"], [], False, "bank.test", False),
    (["*.bank.test"], [], False, "a.b.bank.test", False),
    (["*.bank.test"], [], True, "a.b.bank.test", True),
    (["*.bank.test"], ["www.bank.test"], False, "reports.bank.test", False),
    (["*.bank.test"], ["*.bank.test"], False, "reports.bank.test", True),
    (["xn--bcher-kva.test"], ["bücher.test"], False, "xn--bcher-kva.test", True),
    (["bank.test", "other.test"], ["other.test"], False, "bank.test", False),
    # RFC 7469 §2.3.3: an address is never pinned, so a report to one is never refused.
    (["bank.test", "127.0.0.1"], [], False, "127.0.0.1", False),
    (["bank.test"], ["bank.test", "127.0.0.1"], False, "127.0.0.1", False),
]


@pytest.mark.parametrize(("names", "hosts", "subdomains", "target", "refused"), REPORT_HOSTS)
@pytest.mark.parametrize("mode", ["enforce", "report-only"])
def test_reports_about_a_host_go_elsewhere(
    names: list[str], hosts: list[str], subdomains: bool, target: str, refused: bool, mode: Any, site: Site
) -> None:
    site.deploy(site.issue(*names))
    options = {**site.options, "hosts": hosts, "include_subdomains": subdomains, "mode": mode}
    outcome = pytest.raises(PolicyError, match="reports to it fail too") if refused else contextlib.nullcontext()
    with outcome:
        assert Policy(**options, report_uri=f"https://{target}:8443/r").header is not None


_LABELS = st.lists(st.sampled_from(["a", "b", "test"]), min_size=1, max_size=4).map(".".join)


@given(host=_LABELS, target=_LABELS, subdomains=st.booleans())
def test_a_report_uri_is_refused_exactly_where_the_pins_would_hold(host: str, target: str, subdomains: bool) -> None:
    keys = {"keys": Pin(b"k" * 32), "backups": Pin(b"b" * 32), "max_age": 60, "include_subdomains": subdomains}
    entry = KnownPinnedHost(host, (Pin(b"k" * 32),), subdomains, None, 0, None)
    try:
        Policy(**keys, hosts=host, report_uri=f"https://{target}/")  # type: ignore[arg-type] # a dict of several types
    except PolicyError:
        refused = True
    else:
        refused = False
    assert refused == (applicable([entry], target, 0) is not None)


# -- silence ---------------------------------------------------------------------------------------------------------


def test_silence_starts_without_a_header_and_takes_it_up_when_all_is_well(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    spare = site.backup.read_bytes()
    site.backup.write_bytes(site.chain.read_bytes())
    policy = Policy(**site.options, on_invalid="silence")
    assert (policy.header, policy.field, policy.text_field) == (None, None, None)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("dynpin.middleware", logging.ERROR)
    assert "without a Public-Key-Pins header: all Backup Pins are in" in record.getMessage()
    site.backup.write_bytes(spare)
    assert policy.refresh()
    assert str(policy.header) == site.expected()
    assert PublicKeyPins.parse(str(policy.header)) == policy.header


def test_silence_says_nothing_where_nothing_is_wrong(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert Policy(**site.options, on_invalid="silence").header is not None
    assert not caplog.records


def test_repr_shows_what_is_sent(site: Site) -> None:
    assert repr(Policy(**site.options)) == f"<Policy Public-Key-Pins: {site.expected()}>"
    site.backup.unlink()
    assert repr(Policy(**site.options, on_invalid="silence")) == "<Policy without a header>"
