"""Other programs' pin files: Chromium's, TOML that names files, and an exchange with the real wget2."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import subprocess
import textwrap
from pathlib import Path

import pytest
import trustme

from dynpin import InvalidPinFile
from dynpin.clientstore import PinStore
from dynpin.clientstore.store.formats import (
    read_chromium,
    read_json,
    read_toml,
    read_wget2,
    write_wget2,
)
from dynpin.lab.network import TLSServer

from .pin_files import CHROMIUM, CHROMIUM_KEYS, NOW, ONE, TWO, opened
from .world import leaf_pin

WGET2 = shutil.which("wget2")


# -- Chromium ---------------------------------------------------------------------------------------------------------


def test_chromiums_static_pins_are_read() -> None:
    entries, forbidding = read_chromium(opened(CHROMIUM), opened(CHROMIUM_KEYS), now=NOW)
    assert [
        (entry.host, entry.pins, entry.include_subdomains, entry.report_uri, entry.source) for entry in entries
    ] == [
        ("a.test", (ONE, TWO), True, "http://report.test//x", "static"),
        ("c.test", (ONE,), True, None, "static"),
        ("d.test", (ONE,), False, None, "static"),
    ]
    assert forbidding == ["strict"]


def test_chromiums_keys_may_be_certificates_and_public_keys() -> None:
    leaf = trustme.CA().issue_cert("a.test")
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = leaf.cert_chain_pems[0].bytes()
    public = (
        x509.load_pem_x509_certificate(pem).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    keys = f"First\n{pem.decode()}\nSecond_2\n{public.decode()}\n"
    entries, _ = read_chromium(opened(CHROMIUM), opened(keys), now=NOW)
    assert entries[0].pins == (leaf_pin(leaf),)


# -- TOML names files -------------------------------------------------------------------------------------------------


def test_static_pins_may_name_key_files_and_certificates(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("a.test")
    chain = tmp_path / "site.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    text = '[[static]]\nhost = "a.test"\nkeys = ["site.pem"]\ncertificates = ["site.pem"]\n'
    (entry,) = read_toml(opened(text), now=NOW, folder=tmp_path)
    der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    assert entry.pins == (leaf_pin(leaf),)
    assert entry.certificates == (hashlib.sha256(der).digest(),)
    for field in ("keys", "certificates"):
        with pytest.raises(InvalidPinFile, match=r"gone\.pem"):
            list(read_toml(opened(f'[[static]]\nhost = "a.test"\n{field} = ["gone.pem"]\n'), now=NOW, folder=tmp_path))


def test_a_fingerprint_as_openssl_prints_it_is_read() -> None:
    colons = ":".join(["AB"] * 32)
    (entry,) = read_json(opened(json.dumps([{"host": "a.test", "certificates": [colons]}])), now=NOW)
    assert entry.certificates == (b"\xab" * 32,)


# -- the real wget2 ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(WGET2 is None, reason="wget2 is not installed: apt-get install wget2")
def test_wget2_and_dynpin_enforce_each_others_pins(tmp_path: Path) -> None:
    authority = trustme.CA()
    roots, file = tmp_path / "roots.pem", tmp_path / "hpkp"
    roots.write_bytes(authority.cert_pem.bytes())
    site, backup, other = (authority.issue_cert("localhost") for _ in range(3))
    header = f'pin-sha256="{leaf_pin(site)}"; pin-sha256="{leaf_pin(backup)}"; max-age=3600; includeSubDomains'

    def wget2(port: int) -> int:
        assert WGET2 is not None
        command = [WGET2, "--no-config", "--hpkp", f"--hpkp-file={file}", f"--ca-certificate={roots}", "--no-hsts"]
        command += ["--tries=1", "--timeout=60", "--no-ocsp", "--no-tls-resume", "-O", str(tmp_path / "page")]
        done = subprocess.run([*command, f"https://localhost:{port}/"], capture_output=True, timeout=300, check=False)
        return done.returncode

    with TLSServer(site) as server, PinStore(tmp_path / "ours") as ours, PinStore(tmp_path / "theirs") as theirs:
        ours.note("localhost", header, [leaf_pin(site)])
        file.write_text("".join(write_wget2(ours.hosts())))
        assert wget2(server.port) == 0
        server.show(other)
        assert wget2(server.port) == 5  # our pins bind wget2

        file.unlink()
        server.show(site)
        server.headers = [("Public-Key-Pins", header)]
        assert wget2(server.port) == 0
        with file.open() as lines:
            assert theirs.merge(read_wget2(lines, now=theirs.clock())) == 1
        (taken,) = theirs.hosts()
        assert taken.pins == (leaf_pin(site), leaf_pin(backup)) or taken.pins == (leaf_pin(backup), leaf_pin(site))
        assert taken.include_subdomains
        assert taken.expires_at == taken.noted_at + 3600
        assert not theirs.validate("www.localhost", [leaf_pin(other)]).ok  # wget2's pins bind us
        assert theirs.validate("localhost", [leaf_pin(backup)]).ok


def test_the_example_of_the_documents_is_read() -> None:
    text = textwrap.dedent(f"""
        [[static]]
        host = "api.example.com"
        pins = ["{ONE}", "{TWO}"]
        include_subdomains = true
        expires_at = 2027-06-30
        on_expiry = "release"
    """)
    (entry,) = read_toml(opened(text), now=NOW)
    assert entry.expires_at == 1_814_313_600.0
    assert (entry.on_expiry, entry.include_subdomains, entry.pins) == ("release", True, (ONE, TWO))
