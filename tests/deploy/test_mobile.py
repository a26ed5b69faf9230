"""The signed files of mobile SDKs, checked against the openssl command over bytes that these tests build themselves."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from dynpin import KnownPinnedHost, Pin
from dynpin.deploy.mobile import export_ssl_pinning, export_wultra
from dynpin.pins import certificates
from tests.deploy.commands import at_a_terminal, dynpin

NOW, DAY = 1_796_000_000, 86_400
HOST = "www.example.com"
BACKUP, OTHER = Pin(b"\x01" * 32), Pin(b"\x02" * 32)
PASSPHRASE = "short"
RSA = rsa.generate_private_key(65537, 2048)

SECRET = ("--passphrase-file", "{folder}/secret")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Files:
    """A certificate with its backup key's pin, and signing keys, each in a file."""

    folder: Path
    chain: Path
    next: Path
    nameless: Path
    ec: Path
    rsa: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("mobile")
    authority = trustme.CA()
    made = Files(folder, *(folder / f"{name}.pem" for name in ("chain", "next", "nameless", "ec", "rsa")))
    for path, name in ((made.chain, HOST), (made.next, HOST), (made.nameless, None)):
        leaf = authority.issue_cert(HOST, common_name=name)
        path.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
    secret = f"pass:{PASSPHRASE}"
    made.ec.write_bytes(
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256", "-pass", secret)
    )
    made.rsa.write_bytes(
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-aes256", "-pass", secret)
    )
    (folder / "secret").write_text(f"{PASSPHRASE}\n")
    (folder / "secret").chmod(0o600)
    (folder / "signing.pub").write_bytes(openssl("pkey", "-in", made.ec, "-passin", secret, "-pubout"))
    (folder / "unpin.toml").write_text(
        f'hosts = ["{HOST}"]\nkeys = ["chain.pem"]\nbackups = ["next.pem"]\n'
        '[policy]\nmode = "unpin"\ninclude_subdomains = true\n'
    )
    return made


def verified(files: Files, key: Path, digest: str, signature: str, signed: bytes) -> bool:
    """Whether the openssl command takes the signature for one of these bytes."""
    public = files.folder / "public.pem"
    public.write_bytes(openssl("pkey", "-in", key, "-passin", f"pass:{PASSPHRASE}", "-pubout"))
    (files.folder / "signature").write_bytes(base64.b64decode(signature, validate=True))
    (files.folder / "signed").write_bytes(signed)
    said = openssl("dgst", digest, "-verify", public, "-signature", files.folder / "signature", files.folder / "signed")
    return said == b"Verified OK\n"


def export(files: Files, form: str, key: Path, *arguments: str | Path) -> Any:
    result = dynpin(
        *("export", form, *map(str, arguments), "--signing-key", str(key)),
        *("--passphrase-file", str(files.folder / "secret"), "--now", str(datetime.fromtimestamp(NOW, UTC))),
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@needs_openssl
def test_openssl_verifies_what_wultra_s_sdks_rebuild(files: Files) -> None:
    """name&fingerprint&expires, each as the SDKs take it from the certificate and the JSON."""
    entries = export(files, "wultra", files.ec, files.chain, files.next, str(BACKUP))["fingerprints"]
    for path, entry in zip((files.chain, files.next), entries, strict=True):
        der = openssl("x509", "-in", path, "-outform", "DER")
        fingerprint = base64.b64encode(openssl("dgst", "-sha256", "-binary", stdin=der)).decode()
        end = openssl("x509", "-in", path, "-noout", "-enddate", "-dateopt", "iso_8601").decode()
        expires = int(datetime.fromisoformat(end.strip().removeprefix("notAfter=")).timestamp())
        signature = entry.pop("signature")
        assert entry == {"name": HOST, "fingerprint": fingerprint, "expires": expires}
        assert verified(files, files.ec, "-sha256", signature, f"{HOST}&{fingerprint}&{expires}".encode())


@needs_openssl
def test_openssl_verifies_the_canonical_payload_of_ssl_pinning(files: Files) -> None:
    exported = export(files, "ssl-pinning", files.rsa, files.chain, str(BACKUP), "--host", HOST, "--max-age", "600")
    spki = openssl("pkey", "-pubin", "-outform", "DER", stdin=openssl("x509", "-in", files.chain, "-noout", "-pubkey"))
    pin = base64.b64encode(openssl("dgst", "-sha256", "-binary", stdin=spki)).decode()
    date = datetime.fromtimestamp(NOW, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # RFC 8785: members in the order of their names, no space.
    keys = ",".join(
        f'{{"date":"{date}","domainName":"{HOST}","expire":600,"fqdn":"{HOST}","key":"{each}"}}'
        for each in (pin, str(BACKUP))
    )
    assert json.loads(f'{{"keys":[{keys}]}}') == exported["payload"]
    assert verified(files, files.rsa, "-sha512", exported["signature"], f'{{"keys":[{keys}]}}'.encode())


@needs_openssl
def test_an_inventory_with_several_hosts(files: Files) -> None:
    named = trustme.CA().issue_cert(HOST, "api.example.com", f"*.{HOST}", "*.api.example.com")
    (files.folder / "all.pem").write_bytes(named.cert_chain_pems[0].bytes())
    inventory = files.folder / "dynpin.toml"
    inventory.write_text(
        f'hosts = ["{HOST}", "api.example.com"]\nkeys = ["all.pem"]\nbackups = ["next.pem"]\n'
        '[policy]\nmax_age = "1 day"\ninclude_subdomains = true\n'
    )
    arguments = ("--inventory", inventory, "--expires", "2027-01-01")
    keys = export(files, "ssl-pinning", files.rsa, *arguments)["payload"]["keys"]
    pins = [Pin.from_file(files.folder / "all.pem"), Pin.from_file(files.next)]
    # OkHttp: two asterisks stand for the host and for all below it.
    assert [(each["domainName"], each["fqdn"], each["key"]) for each in keys] == [
        (f"**.{host}", host, str(each)) for host in (HOST, "api.example.com") for each in pins
    ]
    assert {each["expire"] for each in keys} == {int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()) - NOW}


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(lambda each: "--" not in each)
hosts = st.lists(labels, min_size=1, max_size=4).map(lambda each: ".".join([*each, "example"]))
pins = st.lists(st.binary(min_size=32, max_size=32).map(Pin), min_size=1, max_size=20, unique=True)
sites = st.builds(
    lambda host, pins, covers, seconds: KnownPinnedHost(host, tuple(pins), covers, None, NOW, NOW + seconds, "static"),
    *(hosts, pins, st.booleans(), st.integers(1, 2**40)),
)


@given(st.lists(sites, min_size=1, max_size=5), st.floats(NOW, NOW + 0.99))
def test_every_list_of_hosts_and_pins_is_what_is_signed(entries: list[KnownPinnedHost], now: float) -> None:
    text = export_ssl_pinning(entries, RSA, now=now)
    exported = json.loads(text)
    date = datetime.fromtimestamp(NOW, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = [
        f'{{"date":"{date}","domainName":"{"**." if entry.include_subdomains else ""}{entry.host}",'
        f'"expire":{int(entry.expires_at or 0) - NOW},"fqdn":"{entry.host}","key":"{pin}"}}'
        for entry in entries
        for pin in entry.pins
    ]
    signed = f'{{"keys":[{",".join(keys)}]}}'.encode()
    assert exported["payload"] == json.loads(signed)
    RSA.public_key().verify(base64.b64decode(exported["signature"]), signed, padding.PKCS1v15(), SHA512())
    assert text == export_ssl_pinning(entries, RSA, now=now), "the same list gives the same bytes"


def site(*given: Pin, ends: float | None = NOW + DAY) -> KnownPinnedHost:
    return KnownPinnedHost(HOST, given, False, None, NOW, ends, "static")


@pytest.mark.parametrize(
    ("entries", "key", "said"),
    [
        ([site(BACKUP)], ec.generate_private_key(ec.SECP256R1()), "of the kind ec-p256, and ssl-pinning's SDKs verify"),
        ([site(BACKUP)], rsa.generate_private_key(65537, 3072), "of the kind rsa-3072"),
        ([site(BACKUP)], ed25519.Ed25519PrivateKey.generate(), "of the kind ed25519"),
        ([site(BACKUP)], None, "the signing key is none"),
        ([], RSA, "refuse an empty list"),
        ([site()], RSA, f"there is no pin for {HOST}"),
        ([site(BACKUP, ends=None)], RSA, "need an expiry"),
        ([site(BACKUP, ends=NOW + 0.5)], RSA, "need an expiry"),
    ],
)
def test_what_ssl_pinning_cannot_say(entries: list[KnownPinnedHost], key: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        export_ssl_pinning(entries, key, now=NOW)


def test_what_wultra_cannot_say(files: Files) -> None:
    (leaf, *_), (nameless, *_) = (certificates(each.read_bytes()) for each in (files.chain, files.nameless))
    p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    for ders, key, now, said in (
        ([leaf], RSA, NOW, "rsa-2048, and Wultra's SDKs verify EC P-256 alone"),
        ([leaf], p384, NOW, "ec-p384"),
        ([], p256, NOW, "none of these files has one"),
        ([nameless], p256, NOW, "has 0 common names"),
        ([b"0"], p256, NOW, "cannot be read"),
        ([leaf], p256, 2**35, f"of {HOST} expired on"),
    ):
        with pytest.raises(ValueError, match=said):
            export_wultra(ders, key, now=now)
    assert len(json.loads(export_wultra([leaf, leaf], p256, now=NOW))["fingerprints"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ssl-pinning", str(OTHER), str(BACKUP), "--host", HOST), "with --signing-key FILE"),
        (("nginx", str(OTHER), str(BACKUP), "--signing-key", "{rsa}"), "nginx is not signed"),
        (("curl", str(OTHER), "--host", HOST, *SECRET), "curl is not signed"),
        (
            ("ssl-pinning", "{chain}", str(BACKUP), "--host", HOST, "--signing-key", "{chain}"),
            "not a private key in PEM",
        ),
        (("ssl-pinning", "{chain}", str(BACKUP), "--host", HOST, "--signing-key", "{folder}/x"), "No such file"),
        (("ssl-pinning", "{chain}", str(BACKUP), "--host", HOST, "--signing-key", "{rsa}"), "no terminal to ask"),
        (("wultra", "{chain}", "--signing-key", "{rsa}", *SECRET), "EC P-256 alone"),
        (("wultra", "{chain}", "--signing-key", "{ec}", "--passphrase-file", "{chain}"), "passphrase is wrong"),
        (("wultra", "{chain}", "--signing-key", "{ec}", "--passphrase-file", "{folder}/x"), "No such file"),
        (
            ("wultra", "{chain}", "--host", HOST, "--signing-key", "{ec}", *SECRET),
            "leave",
        ),
        (("wultra", str(OTHER), "--signing-key", "{ec}", *SECRET), "has one"),
        (
            ("ssl-pinning", str(OTHER), str(BACKUP), "--signing-key", "{rsa}", *SECRET),
            "names hosts",
        ),
        (("wultra", "{chain}", "{folder}/signing.pub", "--signing-key", "{ec}", *SECRET), "of the site"),
        (("ssl-pinning", "--inventory", "{folder}/unpin.toml", "--signing-key", "{rsa}", *SECRET), "the mode is unpin"),
        (("wultra", "--inventory", "{folder}/unpin.toml", "--signing-key", "{ec}", *SECRET), "say --no-subdomains"),
        (("ssl-pinning", "--watch", "x", "--signing-key", "{rsa}"), "--watch follows only dynpin.toml"),
        (("wultra", "--watch", "x"), "--watch is for servers"),
    ],
)
def test_wrong_usage(files: Files, arguments: tuple[str, ...], said: str) -> None:
    named = {name: str(getattr(files, name)) for name in ("folder", "chain", "rsa", "ec")}
    result = dynpin("export", *(each.format(**named) for each in arguments))
    assert (result.exit_code, said in result.stderr, result.stdout) == (2, True, ""), result.output


def test_the_command_says_what_follows(files: Files) -> None:
    secret = ("--passphrase-file", str(files.folder / "secret"))
    result = dynpin("export", "wultra", str(files.chain), str(BACKUP), "--signing-key", str(files.ec), *secret)
    assert f"left out, since it is not a certificate: {BACKUP}" in result.stderr
    assert "add the next one here before you deploy it" in result.stderr
    arguments = (str(files.chain), "--host", HOST, "--expires", "2099-01-01", "--signing-key", str(files.rsa))
    result = dynpin("export", "ssl-pinning", *arguments, *secret)
    assert (result.exit_code, "no pin is that of a backup" in result.stderr) == (0, True)
    assert "forget it on 2099-01-01T00:00:00Z" in result.stderr


def test_a_passphrase_is_asked_for_at_the_terminal_and_a_plain_key_needs_none(files: Files, tmp_path: Path) -> None:
    arguments = ("export", "wultra", str(files.chain), "--signing-key")
    shown, code = at_a_terminal([*arguments, str(files.ec)], [PASSPHRASE])
    assert (code, "Passphrase of the keys: " in shown, '"fingerprints"' in shown) == (0, True, True)
    plain = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "plain.pem").write_bytes(
        plain.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    assert dynpin(*arguments, str(tmp_path / "plain.pem")).exit_code == 0
