"""Chains that clients would refuse."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from dynpin.lab.certificates import Authority, KeyPair
from dynpin.middleware import Policy
from dynpin.middleware.policy import (
    Chain,
    Key,
    chain_faults,
    covers,
    in_chain,
    read_chain,
    read_key,
    trust_anchors,
    without_root,
)

from .pki import HOST, LEAF, Pki, pem

NOW = 1_800_000_000.0


CHAINS: dict[str, tuple[Callable[[Pki], bytes], list[tuple[str, bool]]]] = {
    "leaf and intermediate": (lambda pki: pem(*pki.whole[:2]), []),
    "the root along": (lambda pki: pem(*pki.whole), []),
    "the leaf alone": (lambda pki: pem(pki.whole[0]), []),
    "in reverse": (lambda pki: pem(*reversed(pki.whole)), [("chain-out-of-order", True)]),
    "root, leaf": (
        lambda pki: pem(pki.root.certificate, pki.root.issue(HOST, LEAF).served[0]),
        [("chain-out-of-order", True)],
    ),
    "an intermediate first": (lambda pki: pem(pki.whole[1], pki.whole[2]), [("ca-certificate-as-leaf", True)]),
    "an intermediate alone": (lambda pki: pem(pki.whole[1]), [("ca-certificate-as-leaf", True)]),
    "root before intermediate": (
        lambda pki: pem(pki.whole[0], pki.whole[2], pki.whole[1]),
        [("chain-out-of-order", False)],
    ),
    "a stranger among them": (lambda pki: pem(pki.whole[0], pki.other.certificate), [("chain-out-of-order", False)]),
    "expired": (lambda pki: pki.root.issue(HOST, LEAF, expired=True).pem, [("certificate-expired", True)]),
    "of another host": (lambda pki: pki.root.issue("evil.test", LEAF).pem, [("certificate-of-another-host", True)]),
    "the root alone": (lambda pki: pki.root.pem, [("certificate-of-another-host", True)]),
}


@pytest.mark.parametrize(("make", "expected"), CHAINS.values(), ids=CHAINS)
def test_what_is_wrong_with_a_chain(make: Callable[[Pki], bytes], expected: list[tuple[str, bool]], pki: Pki) -> None:
    chain = read_chain(make(pki), "the chain")
    found = chain_faults(chain, [HOST], now=_today(pki))
    codes = [(fault.code, fault.refused) for fault in found]
    # Of a CA's certificate in front that is not for the host it is said too.
    assert codes[: len(expected)] == expected
    assert {code for code, _ in codes[len(expected) :]} <= {"certificate-of-another-host"}
    assert all("the chain" in fault.message for fault in found)


def _today(pki: Pki) -> float:
    return pki.whole[0].not_valid_before_utc.timestamp() + 400 * 86_400


@pytest.mark.parametrize(("days", "code"), [(-401, "certificate-not-yet-valid"), (3651, "certificate-expired")])
def test_dates(days: int, code: str, pki: Pki) -> None:
    found = chain_faults(read_chain(pki.leaf.pem, "the chain"), now=_today(pki) + days * 86_400)
    # Of the intermediate it is a warning: clients may know another way to a root.
    assert [(fault.code, fault.refused) for fault in found] == [(code, True), (code, False)]


def test_the_roots_of_a_system_that_has_a_folder_of_them(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Debian has no file at OpenSSL's own place. Of a folder OpenSSL loads nothing before a chain asks for it.
    (tmp_path / "0a1b2c3d.0").write_bytes(pki.root.pem)
    (tmp_path / "README").write_text("no root")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    reason = in_chain(Key("the backup", pki.root.key.pin), [read_chain(pki.leaf.pem, "chain.pem")])
    assert reason is not None
    assert "a root of chain.pem" in reason


def test_a_file_of_roots_is_read_again(pki: Pki, tmp_path: Path) -> None:
    roots, chain = tmp_path / "roots.pem", read_chain(pki.leaf.pem, "chain.pem")
    backup = Key("the backup", pki.root.key.pin)
    roots.write_bytes(pki.other.pem)
    assert in_chain(backup, [chain], [roots]) is None
    roots.write_bytes(pki.root.pem)
    assert in_chain(backup, [chain], [roots]) is not None


def test_self_signed_beside_a_ca(pki: Pki) -> None:
    own = read_chain(pem(Authority(HOST).certificate), "self-signed.pem")
    issued = read_chain(pki.leaf.pem, "issued.pem")
    [fault] = chain_faults(own, now=_today(pki), beside=[issued])
    assert (fault.code, fault.refused) == ("self-signed-certificate", True)
    assert not chain_faults(own, now=_today(pki))
    assert not chain_faults(issued, now=_today(pki), beside=[own])


def _issue(*extensions: tuple[x509.ExtensionType, bool], issuer: tuple[str, Any] | None = None) -> x509.Certificate:
    """A certificate for HOST with these extensions, by this issuer or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer, names = (issuer[1], [HOST, issuer[0]]) if issuer else (key, [HOST, HOST])
    subject, by = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in names)
    start = datetime.datetime.fromtimestamp(NOW - 86_400, datetime.UTC)
    builder = x509.CertificateBuilder(by, subject, key.public_key(), 1, start, start + datetime.timedelta(days=90))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256())


def _usage(*, signs: bool) -> x509.KeyUsage:
    off = dict.fromkeys(["content_commitment", "key_agreement", "data_encipherment", "key_encipherment"], False)
    off |= dict.fromkeys(["key_cert_sign", "encipher_only", "decipher_only"], False)
    return x509.KeyUsage(digital_signature=signs, crl_sign=not signs, **off)


_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


_RFC_3779 = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.7"), b"\x30\x00")


_ANY, _CLIENT, _SERVER = (
    [usage]
    for usage in (
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    )
)


USES = {
    "nothing": ([], ""),
    "an unknown extension": ([(_UNKNOWN, False)], ""),
    "one that OpenSSL knows": ([(_RFC_3779, True)], ""),
    "for servers": ([(x509.ExtendedKeyUsage(_CLIENT + _SERVER), False), (_usage(signs=True), True)], ""),
    "an unknown critical extension": ([(_UNKNOWN, True)], "1.2.3.4"),
    "for clients": ([(x509.ExtendedKeyUsage(_CLIENT), False)], "serverAuth"),
    "for anything": ([(x509.ExtendedKeyUsage(_ANY), False)], "serverAuth"),
    "for revocation lists": ([(_usage(signs=False), True)], "no handshake"),
    "a precertificate": ([(x509.PrecertPoison(), True)], "precertificate"),
}


@pytest.mark.parametrize(("extensions", "reason"), USES.values(), ids=USES)
def test_what_a_certificate_is_for(extensions: list[tuple[x509.ExtensionType, bool]], reason: str) -> None:
    found = chain_faults(read_chain(pem(_issue(*extensions)), "the chain"), now=NOW)
    assert [(fault.code, fault.refused) for fault in found] == ([("certificate-unusable", True)] if reason else [])
    assert all(reason in fault.message for fault in found)


# What OpenSSL may read and cryptography does not: the bytes of a certificate, and what they become.
MALFORMED = {
    "a version of the future": (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"),
    "a version that is not written": (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x00"),
    "an algorithm without a name": (bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040399")),
    "a subject that is no text": (b"\x0c\x09bank.test", b"\x0c\x09bank\xfftest"),
}


@pytest.mark.parametrize(("old", "new"), MALFORMED.values(), ids=MALFORMED)
def test_a_certificate_that_cannot_be_read_is_said(old: bytes, new: bytes, pki: Pki) -> None:
    der = pki.leaf.served[0].public_bytes(Encoding.DER)
    assert old in der
    malformed = ssl.DER_cert_to_PEM_cert(der.replace(old, new)).encode() + pem(*pki.leaf.served[1:])
    chain = read_chain(malformed, "the chain")
    [fault] = chain_faults(chain, [HOST], now=NOW)
    assert (fault.code, fault.refused) == ("certificate-unreadable", False)
    assert trust_anchors(chain) == (pki.leaf.served[1].public_bytes(Encoding.DER),)
    assert Policy(malformed, pki.spare.public_pem, max_age=60).header is not None
    assert read_key(malformed, "a backup").pin == pki.leaf.key.pin


def test_an_issuer_that_is_no_ca() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "www")])
    start = datetime.datetime.fromtimestamp(NOW - 86_400, datetime.UTC)
    above = x509.CertificateBuilder(
        x509.Name([]), name, key.public_key(), 1, start, start + datetime.timedelta(days=90)
    ).sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    [fault] = chain_faults(read_chain(pem(_issue(issuer=("www", key)), above), "the chain"), now=NOW)
    assert (fault.code, fault.refused) == ("certificate-unusable", True)
    assert "CN=www) issued another one, but is not a CA certificate" in fault.message


def _ca(name: str, above: tuple[str, Any], *extensions: x509.ExtensionType, length: int | None = None) -> Any:
    """The certificate of a CA with these extensions, below another one, and its name and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, by = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, above[0]))
    start = datetime.datetime.fromtimestamp(NOW - 86_400, datetime.UTC)
    builder = x509.CertificateBuilder(by, subject, key.public_key(), 1, start, start + datetime.timedelta(days=90))
    for extension in (x509.BasicConstraints(True, length), *extensions):
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(above[1], hashes.SHA256()), (name, key)


def _only(*names: str, never: tuple[str, ...] = ()) -> x509.NameConstraints:
    permitted, excluded = ([x509.DNSName(each) for each in listed] or None for listed in (names, never))
    return x509.NameConstraints(permitted, excluded)


# What a CA above the leaf has, and why it may not issue that leaf; nothing where it may.
ISSUERS: dict[str, tuple[x509.ExtensionType, str]] = {
    "for these names": (_only("bank.test", "other.test"), ""),
    "for names below": (_only("test"), ""),
    "not for those names": (_only(never=("other.test", "nk.test")), ""),
    "for other names": (_only("other.test", "www.bank.test"), "bank.test"),
    "not for these names": (_only("test", never=("bank.test",)), "bank.test"),
    "for servers": (x509.ExtendedKeyUsage(_SERVER), ""),
    "for clients": (x509.ExtendedKeyUsage(_CLIENT), "serverAuth"),
    "for handshakes": (_usage(signs=True), "key usage"),
}


@pytest.mark.parametrize(("extension", "reason"), ISSUERS.values(), ids=ISSUERS)
def test_what_an_issuer_may_issue(extension: x509.ExtensionType, reason: str) -> None:
    root = ("the root", ec.generate_private_key(ec.SECP256R1()))
    above, issuer = _ca("an intermediate", root, extension)
    leaf = _issue((x509.SubjectAlternativeName([x509.DNSName("BANK.test")]), False), issuer=issuer)
    found = chain_faults(read_chain(pem(leaf, above), "the chain"), now=NOW)
    assert [fault.code for fault in found] == (["certificate-unusable"] if reason else [])
    assert all(reason in fault.message and "an intermediate" in fault.message for fault in found)


@pytest.mark.parametrize(("length", "refused"), [(0, True), (1, False), (None, False)])
def test_how_many_intermediates_a_ca_permits(length: int | None, refused: bool) -> None:
    upper, by = _ca("upper", ("root", ec.generate_private_key(ec.SECP256R1())), length=length)
    lower, issuer = _ca("lower", by, length=0)
    found = chain_faults(read_chain(pem(_issue(issuer=issuer), lower, upper), "the chain"), now=NOW)
    assert [fault.refused for fault in found] == [True] * refused


def test_a_certificate_that_a_ca_issued_to_itself_is_no_intermediate() -> None:
    old, by = _ca("the CA", ("root", ec.generate_private_key(ec.SECP256R1())), length=0)
    new, issuer = _ca("the CA", by, length=0)
    assert not chain_faults(read_chain(pem(_issue(issuer=issuer), new, old), "the chain"), now=NOW)


@pytest.mark.parametrize("days", [-401, 3651])
@pytest.mark.parametrize("extra", ["intermediate", "root"])
def test_what_is_not_valid_completes_nothing(days: int, extra: str, pki: Pki, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(pki.root.pem)
    chain = pki.leaf if extra == "intermediate" else pki.root.issue(HOST, LEAF)
    served = read_chain(chain.pem, "chain.pem")
    for known in ([], [roots])[extra == "root" :]:
        assert without_root(served, [served], known, now=_today(pki)) is None
        reason = without_root(served, [served], known, now=_today(pki) + days * 86_400)
        assert reason is not None
        assert "is missing, has expired or is not valid yet" in reason


def test_a_cross_signed_root_along_is_no_fault(pki: Pki, tmp_path: Path) -> None:
    """As with Let's Encrypt: the chain may end at the root that clients know, or go on to an older one."""
    known, old = tmp_path / "known.pem", tmp_path / "old.pem"
    known.write_bytes(pki.root.pem)
    old.write_bytes(pki.other.pem)
    leaf, intermediate = pki.leaf.served
    cross = pki.root.cross_signed(pki.other).certificate
    twin = Authority("Intermediate", Authority("A third root"), pki.intermediate.key).certificate
    short, long = pki.leaf.pem, pem(leaf, intermediate, cross)
    for new, present, roots, fine in [
        (long, short, [known], True),
        (long, short, [], True),
        (short, long, [known], True),
        (short, long, [old], False),
        (pem(leaf, twin, intermediate), short, [known], True),
        (pem(leaf, twin), short, [known], False),
    ]:
        reason = without_root(read_chain(new, "new.pem"), [read_chain(present, "present.pem")], roots, now=_today(pki))
        assert (reason is None) == fine, reason


def test_a_chain_that_no_root_completes_in_the_place_of_one_that_ends_somewhere(pki: Pki, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(pki.root.pem)
    present, bare, strange = (
        read_chain(data, "chain.pem")
        for data in (pki.leaf.pem, pem(pki.whole[0]), pki.other.issue(HOST, KeyPair("server", "x")).pem)
    )
    for known in ([], [roots]):
        assert without_root(present, [present], known, now=_today(pki)) is None
        for chain in (bare, strange):
            reason = without_root(chain, [present], known, now=_today(pki))
            assert reason is not None
            assert "is missing" in reason
    # Nothing tells where no chain is deployed, and a root that is named ends the doubt.
    assert without_root(bare, [], now=_today(pki)) is None
    roots.write_bytes(pki.other.pem)
    assert without_root(strange, [present], [roots], now=_today(pki)) is None


NAMES = [
    (["bank.test"], ["bank.test"], True),
    (["BANK.test."], ["bank.test"], True),
    (["*.bank.test"], ["www.bank.test"], True),
    (["*.bank.test"], ["bank.test"], False),
    (["*.bank.test"], ["a.b.bank.test"], False),
    (["*.bank.test"], ["*.bank.test"], True),
    (["xn--bcher-kva.test"], ["bücher.test"], True),
    (["bank.test"], ["bank.test", "www.bank.test"], False),
    (["bank.test"], ["127.0.0.1"], True),  # an address is never pinned (§2.3.3)
    ([], ["bank.test"], False),
]


@pytest.mark.parametrize(("names", "hosts", "fine"), NAMES)
def test_names_against_hosts(names: list[str], hosts: list[str], fine: bool, pki: Pki) -> None:
    chain = Chain(
        "chain.pem", (pki.leaf.key.pin,), tuple(names), None, (pki.leaf.served[0].public_bytes(Encoding.DER),)
    )
    codes = [fault.code for fault in chain_faults(chain, hosts, now=_today(pki))]
    assert codes == ([] if fine else ["certificate-of-another-host"])


def test_two_chains_cover_the_hosts_together_and_each_has_one(pki: Pki) -> None:
    first, second, third = (
        read_chain(pki.root.issue(name, KeyPair(name, "x")).pem, name) for name in ("a.test", "b.test", "c.test")
    )
    assert not chain_faults(first, ["a.test", "b.test"], now=_today(pki), beside=[second])
    assert chain_faults(first, ["a.test", "b.test"], now=_today(pki), beside=[third])
    assert chain_faults(third, ["a.test", "b.test"], now=_today(pki), beside=[first, second])


def test_covers_takes_one_label_for_a_star() -> None:
    assert covers(["*.bank.test"], "www.bank.test")
    assert not covers(["*.bank.test"], "bank.test")
