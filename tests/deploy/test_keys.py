"""`dynpin keys`: what is made opens with openssl, has the pin it says, and is never overwritten."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from dynpin import Pin
from dynpin.deploy.keys import KEY_TYPES, KeyType, key_type, missing_backups, new_key, write_key
from tests.deploy.commands import dynpin
from tests.deploy.servers import make_site, program

SECRET = b"correct horse battery"
# A key of 4096 bits takes seconds to find and shows nothing that the others do not.
TYPES = [kind for kind in KEY_TYPES if kind != "rsa-4096"]


@pytest.mark.parametrize("kind", TYPES)
def test_the_halves_and_the_csr_are_of_one_key(kind: KeyType) -> None:
    key = new_key(kind, ["Www.Example.com", "example.com"], SECRET)
    private = load_pem_private_key(key.private_pem, SECRET)
    assert private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) == key.public_pem
    assert key.pin == Pin.from_public_key(key.public_pem) == Pin.from_csr(key.csr_pem)
    csr = x509.load_pem_x509_csr(key.csr_pem)
    assert csr.is_signature_valid
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert names == ["www.example.com", "example.com"]
    assert key_type(key.public_pem) == key_type(key.csr_pem) == kind


def test_the_private_half_is_encrypted() -> None:
    key = new_key("ec-p256", ["a.example"], SECRET)
    with pytest.raises(TypeError):
        load_pem_private_key(key.private_pem, None)
    with pytest.raises(ValueError, match="password"):
        load_pem_private_key(key.private_pem, b"wrong")
    with pytest.raises(ValueError, match="passphrase"):
        new_key("ec-p256", ["a.example"], b"")
    with pytest.raises(ValueError, match="host"):
        new_key("ec-p256", [], SECRET)


def test_openssl_opens_it_and_agrees_about_the_pin(tmp_path: Path) -> None:
    openssl = program("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key = new_key("ec-p384", ["a.example"], SECRET)
    files = write_key(key, tmp_path, "backup")
    command = [openssl, "pkey", "-in", str(files["private"]), "-passin", f"pass:{SECRET.decode()}", "-pubout"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=300)
    assert Pin.from_public_key(done.stdout) == key.pin
    verify = [openssl, "req", "-in", str(files["csr"]), "-verify", "-noout"]
    assert subprocess.run(verify, capture_output=True, check=False, timeout=300).returncode == 0


def test_only_the_owner_reads_the_private_half_and_nothing_is_overwritten(tmp_path: Path) -> None:
    files = write_key(new_key("ec-p256", ["a.example"], SECRET), tmp_path / "new", "backup")
    assert stat.S_IMODE(files["private"].stat().st_mode) == 0o600
    before = {path: path.read_bytes() for path in files.values()}
    files["private"].unlink()
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_key(new_key("ec-p256", ["a.example"], SECRET), tmp_path / "new", "backup")
    assert not files["private"].exists()
    assert all(path.read_bytes() == before[path] for path in (files["public"], files["csr"]))


@pytest.mark.parametrize(
    ("deployed", "backups", "missing"),
    [
        (["ec-p256"], ["ec-p384"], ()),
        (["ec-p256"], ["rsa-3072"], ("ec",)),
        (["ec-p256", "rsa-2048"], ["ec-p256"], ("rsa",)),
        (["ec-p256", "rsa-2048"], [], ("ec", "rsa")),
        (["ed25519"], ["ed25519"], ()),
    ],
)
def test_one_backup_per_key_type(deployed: list[str], backups: list[str], missing: tuple[str, ...]) -> None:
    assert missing_backups(deployed, backups) == missing


def test_the_command_makes_a_key_and_says_where_to_keep_it(tmp_path: Path) -> None:
    result = dynpin("keys", "new", "a.example", "--out", str(tmp_path), "--passphrase-file", "-", stdin="long enough\n")
    assert result.exit_code == 0, result.output
    pin = Pin.from_file(tmp_path / "backup-ec-p256.pub.pem")
    assert str(pin) in result.stdout
    assert "Where to keep it" in result.stdout
    assert load_pem_private_key((tmp_path / "backup-ec-p256.key.pem").read_bytes(), b"long enough")
    again = dynpin("keys", "new", "a.example", "--out", str(tmp_path), "--passphrase-file", "-", stdin="long enough\n")
    assert (again.exit_code, "never overwritten" in again.stderr) == (2, True)
    asked = dynpin(
        "keys", "new", "a.example", "--out", str(tmp_path), "--type", "ed25519", "--json", stdin="secret\nsecret\n"
    )
    assert json.loads(asked.stdout)["type"] == "ed25519"
    assert dynpin("keys", "new", "a b", "--passphrase-file", "-", stdin="x\n").exit_code == 2


def test_the_command_lists_keys_and_misses_backups(tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.example")
    own = key_type(site.chain.read_bytes())
    alone = dynpin("keys", "list", str(site.chain), "--json")
    assert alone.exit_code == 1
    assert json.loads(alone.stdout)["missing_backups"] == [own.partition("-")[0]]
    # The deployed key is no backup of itself.
    assert dynpin("keys", "list", str(site.chain), "--backup", str(site.key)).exit_code == 1
    files = write_key(new_key("ec-p256", ["a.example"], SECRET), tmp_path, "backup")
    result = dynpin("keys", "list", str(site.chain), "--backup", str(files["csr"]))
    assert (result.exit_code, str(Pin.from_file(files["csr"])) in result.stdout) == (0, True)
    refused = dynpin("keys", "list", str(files["private"]))
    assert (refused.exit_code, "encrypted" in refused.stderr) == (2, True)
