"""The key of a list of ssl-pinning, `dynpin hosts follow --key`, and what `dynpin export` writes."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from dynpin import KnownPinnedHost, Pin
from dynpin.clientstore import PinStore
from dynpin.clientstore.recovery import FolderFetcher, read_signing_key, verify_ssl_pinning
from dynpin.deploy.mobile import export_ssl_pinning
from dynpin.errors import RecoveryError
from dynpin.pin_list import ListedHost
from dynpin.recovery import SIGNING_KEY, Recovery
from tests.deploy.commands import dynpin
from tests.recovery.conftest import HOST, Bank
from tests.recovery.ssl_pinning_lists import DER, KEY, PUBLIC, List, date, pinned


@pytest.mark.parametrize(
    "data",
    [PUBLIC, DER, base64.b64encode(PUBLIC), base64.encodebytes(DER), b"\n" + PUBLIC],
    ids=["PEM", "DER", "base64 of PEM", "base64 of DER, in lines", "PEM behind a line"],
)
def test_the_forms_of_a_key(data: bytes) -> None:
    assert read_signing_key(data) == DER


def _public(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize(
    "data",
    [
        _public(ec.generate_private_key(ec.SECP256R1())),
        _public(rsa.generate_private_key(65537, 1024)),
        KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        b"",
        b"\x30\x82",
        PUBLIC[:100],
    ],
    ids=["EC", "1024 bits", "private", "empty", "cut off, DER", "cut off, PEM"],
)
def test_a_file_without_a_key(data: bytes, bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(RecoveryError, match="not an RSA public key of 2048 bits or more"):
        bank.store.follow("http://127.0.0.1:9/pins.json", data)
    assert bank.store.looks() == []
    (tmp_path / "key").write_bytes(data)
    arguments = ("--key", str(tmp_path / "key"), "--store", str(tmp_path / "s"))
    result = dynpin("hosts", "follow", "http://127.0.0.1:9/pins.json", *arguments)
    assert (result.exit_code, f"{tmp_path / 'key'} cannot sign a list" in result.stderr) == (2, True), result.output


def test_an_exported_list_can_be_followed_by_hand(bank: Bank, tmp_path: Path) -> None:
    listed, store, key = List(bank), str(tmp_path / "client"), tmp_path / "key.pem"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    pins = [str(pin) for pin in bank.pins]
    exported = dynpin("export", "ssl-pinning", *pins, "--host", HOST, "--signing-key", str(key))
    assert exported.exit_code == 0, exported.output
    listed.file.write_text(exported.stdout)
    follow = ("hosts", "follow", listed.uri, "--key", str(tmp_path / "public.pem"), "--store", store)
    done = dynpin(*follow)
    assert (done.exit_code, "1 host pinned by it" in done.output) == (0, True), done.output
    with PinStore(store) as client:
        assert not bank.refused(store=client)
        bank.lose_keys()
        assert bank.refused(store=client)
    shown = dynpin("hosts", "show", HOST, "--store", store).output
    assert listed.uri in shown
    assert "the list of 20" in shown


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
def test_a_list_of_openssl_s_comes_from_a_file(bank: Bank, tmp_path: Path) -> None:
    """Neither the key nor the signature is of Python's making, and there is no network."""
    private, public, file = tmp_path / "private.pem", tmp_path / "public.pem", tmp_path / "list.json"
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, capture_output=True, timeout=120)
    subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    payload = (
        f'{{"keys":[{{"date":"{date(bank.clock())}","domainName":"{HOST}","expire":600,"key":"{bank.pins[0]}"}}]}}'
    )
    command = ["openssl", "dgst", "-sha512", "-sign", str(private)]
    made = subprocess.run(command, input=payload.encode(), check=True, capture_output=True, timeout=120).stdout
    file.write_text(f'{{"signature": "{base64.b64encode(made).decode()}", "payload": {payload}}}')
    follow = ("hosts", "follow", "https://127.0.0.1:9/pins.json", "--key", str(public), "--from", str(file))
    done = dynpin(*follow, "--store", str(tmp_path / "client"))
    assert (done.exit_code, "1 host pinned by it" in done.output) == (0, True), done.output
    with PinStore(tmp_path / "client") as client:
        assert pinned(client) == {bank.pins[0]}
    again = dynpin("hosts", "recover", HOST, "--from", str(file), "--store", str(tmp_path / "client"))
    assert (again.exit_code, "is no news" in again.output) == (0, True), again.output
    nowhere = dynpin("hosts", "recover", HOST, "--from", str(tmp_path / "x"), "--store", str(tmp_path / "client"))
    assert (nowhere.exit_code, "there is no " in nowhere.stderr) == (2, True), nowhere.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name what you trust"),
        (("{file}", "--key", "{file}"), "name what you trust"),
        (("--key", "nowhere.pem"), "there is no file nowhere.pem"),
        (("--key", "{file}", "--from", "nowhere"), "there is no nowhere"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(PUBLIC)
    given = [each.format(file=tmp_path / "file") for each in arguments]
    result = dynpin("hosts", "follow", "http://127.0.0.1:9/pins.json", *given, "--store", str(tmp_path / "store"))
    assert (result.exit_code, said in result.stderr) == (2, True), result.output


labels = st.from_regex(r"[a-z0-9]([a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=3).map(lambda each: ".".join([*each, "example"]))
listings = st.dictionaries(
    names,
    st.tuples(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=64, unique=True), st.booleans()),
    min_size=1,
    max_size=5,
)


@given(listings, st.integers(1, 2**40))
def test_an_exported_list_is_followed(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, tuple[list[bytes], bool]], expire: int
) -> None:
    now = 1_800_000_000
    entries = [
        KnownPinnedHost(host, tuple(map(Pin, digests)), covers, None, now, now + expire, "static")
        for host, (digests, covers) in wanted.items()
    ]
    file = tmp_path_factory.getbasetemp() / "list.json"
    file.write_text(export_ssl_pinning(entries, KEY, now=now))
    recovery = Recovery(Pin.from_public_key(DER).digest, "https://list.example/pins.json")
    seen = verify_ssl_pinning(recovery, {SIGNING_KEY: DER}, FolderFetcher(file, recovery.uri), now)
    assert (seen.problem, seen.list_version) == (None, now)
    assert seen.pins is not None
    assert dict(seen.pins.hosts) == {
        each.host: ListedHost(each.pins, each.include_subdomains, now + expire) for each in entries
    }
