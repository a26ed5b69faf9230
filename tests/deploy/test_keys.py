"""`dynpin keys`: what is made opens with openssl, has the pin it says, and is never overwritten."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from dynpin import Pin
from dynpin.deploy.keys import KEY_TYPES, LONGEST_PASSPHRASE, KeyType, key_type, missing_backups, new_key, write_key
from dynpin.errors import InvalidHost
from dynpin.middleware.policy import public_key
from tests.deploy.commands import at_a_terminal, dynpin
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
    assert key_type(public_key(key.public_pem)) == key_type(public_key(key.csr_pem)) == kind


def test_an_ip_address_is_an_ip_san() -> None:
    key = new_key("ec-p256", ["10.0.0.1", "a.example", "::1", "A.example"], SECRET)
    names = x509.load_pem_x509_csr(key.csr_pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.1"), ip_address("::1")]


@pytest.mark.parametrize(
    "host", ["*", "a.*.test", "s*.test", "*.*.test", "127.1", "0x7f.1", "010.0.0.1", "-", "a-.test"]
)
def test_a_name_that_no_certificate_has(host: str) -> None:
    with pytest.raises(InvalidHost, match="not a name for a certificate"):
        new_key("ec-p256", ["a.test", host], SECRET)


@pytest.mark.parametrize("host", ["*.a.test", "a_b.test", "xn--bcher-kva.test", "printer", "3com.test", "a.test1"])
def test_a_name_of_a_closed_network_is_one(host: str) -> None:
    assert host.encode() in x509.load_pem_x509_csr(new_key("ec-p256", [host], SECRET).csr_pem).public_bytes(
        Encoding.DER
    )


@pytest.mark.parametrize("name", ["../up", "a/b", "back\nup", "nul\0"])
def test_a_name_is_the_start_of_a_file_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="not the start of a file name"):
        write_key(new_key("ec-p256", ["a.example"], SECRET), tmp_path / "in", name)
    assert [each.name for each in tmp_path.rglob("*")] == ["in"]


def test_the_private_half_is_encrypted() -> None:
    key = new_key("ec-p256", ["a.example"], SECRET)
    with pytest.raises(TypeError):
        load_pem_private_key(key.private_pem, None)
    with pytest.raises(ValueError, match="password"):
        load_pem_private_key(key.private_pem, b"wrong")
    with pytest.raises(ValueError, match="host"):
        new_key("ec-p256", [], SECRET)


@pytest.mark.parametrize(
    ("passphrase", "said"),
    [
        (b"", "0 characters"),
        (b"x", "1 character"),
        (b"elf Zeichen", "needs 12"),
        ("ü".encode() * 11, "11 characters"),
        (b"a" * (LONGEST_PASSPHRASE + 1), "longer than"),
        ("long enough, UTF-16".encode("utf-16"), "not UTF-8"),
        (b"long enough\0but for OpenSSL", "could not be typed"),
        (b"long enough, with a\ttab", "could not be typed"),
    ],
)
def test_a_passphrase_is_long_enough_and_can_be_typed(passphrase: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        new_key("ec-p256", ["a.example"], passphrase)
    result = dynpin("keys", "new", "a.example", "--passphrase-file", "-", stdin=passphrase)
    assert (result.exit_code, said in result.stderr) == (2, True), result.output


def test_openssl_opens_the_longest_passphrase(tmp_path: Path) -> None:
    openssl = program("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    secret = tmp_path / "passphrase"
    secret.write_bytes(b"a" * LONGEST_PASSPHRASE)
    files = write_key(new_key("ec-p256", ["a.example"], secret.read_bytes()), tmp_path, "backup")
    command = [openssl, "pkey", "-in", str(files["private"]), "-passin", f"file:{secret}", "-noout"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=300).returncode == 0


def test_openssl_opens_it_and_agrees_about_the_pin(tmp_path: Path) -> None:
    openssl = program("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
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
    with pytest.raises(FileExistsError, match="not overwritten"):
        write_key(new_key("ec-p256", ["a.example"], SECRET), tmp_path / "new", "backup")
    assert not files["private"].exists()  # what was written before the refusal is gone again
    assert all(path.read_bytes() == before[path] for path in (files["public"], files["csr"]))


@pytest.mark.parametrize(
    ("deployed", "backups", "missing"),
    [
        (["ec-p256"], ["ec-p384"], ()),
        (["ec-p256"], ["rsa-3072"], ("ec",)),
        (["ec-p256", "rsa-2048"], ["ec-p256"], ("rsa",)),
        (["ec-p256", "rsa-2048"], [], ("ec", "rsa")),
        (["ed25519"], ["ed25519"], ()),
        (["ec-p256", "unknown"], ["unknown"], ()),
        (["ec-p256", "unknown"], [], ("ec",)),
    ],
)
def test_one_backup_per_key_type(deployed: list[str], backups: list[str], missing: tuple[str, ...]) -> None:
    assert missing_backups(deployed, backups) == missing


def test_a_key_that_cannot_be_written_leaves_no_folder_behind(tmp_path: Path) -> None:
    key = new_key("ec-p256", ["a.example"], SECRET)
    with pytest.raises(OSError, match="too long"):
        write_key(key, tmp_path / "new" / "folder", "x" * 300)
    assert not (tmp_path / "new").exists()


def test_the_command_makes_a_key_and_says_where_to_keep_it(tmp_path: Path) -> None:
    arguments = ("keys", "new", "a.example", "--out", str(tmp_path), "--passphrase-file", "-")
    result = dynpin(*arguments, stdin="long enough for us\n")
    assert result.exit_code == 0, result.output
    pin = Pin.from_file(tmp_path / "backup-ec-p256.pub.pem")
    assert str(pin) in result.stdout
    assert "Where to keep it" in result.stdout
    assert load_pem_private_key((tmp_path / "backup-ec-p256.key.pem").read_bytes(), b"long enough for us")
    again = dynpin(*arguments, stdin="long enough for us\n")
    assert (again.exit_code, "not overwritten" in again.stderr) == (2, True)
    other = dynpin(*arguments, "--type", "ed25519", "--json", stdin="long enough for us\n")
    assert json.loads(other.stdout)["type"] == "ed25519"
    assert dynpin("keys", "new", "a b", "--passphrase-file", "-", stdin="long enough for us\n").exit_code == 2


@pytest.mark.parametrize(
    ("typed", "said", "code"),
    [
        (["long enough for us", "long enough for us"], "", 0),
        (["short", "long enough for us", "long enough for us"], "has 5 characters", 0),
        (["long enough for us", "another one"] + ["long enough for us"] * 2, "not the same", 0),
        (["\x04"], "no passphrase was typed", 2),
        (["\x03"], "stopped", 130),
    ],
    ids=["twice", "too short", "not the same", "end of input", "Ctrl-C"],
)
def test_a_person_is_asked_twice(typed: list[str], said: str, code: int, tmp_path: Path) -> None:
    shown, ended = at_a_terminal(["keys", "new", "a.example", "--out", str(tmp_path)], typed)
    assert (ended, said in shown) == (code, True), shown
    assert not any(line in shown for line in typed if len(line) > 1)
    assert bool(list(tmp_path.iterdir())) == (code == 0)
    if code == 0:
        assert load_pem_private_key((tmp_path / "backup-ec-p256.key.pem").read_bytes(), b"long enough for us")


def test_without_a_terminal_the_way_out_is_said_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dynpin", "keys", "new", "a.example", "--out", str(tmp_path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "dynpin: there is no terminal to ask for the passphrase: name a file with --passphrase-file, or - for stdin"
    ]


def test_a_passphrase_file_that_others_can_read_is_told(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("long enough for us\n")
    for mode, told in ((0o644, True), (0o600, False)):
        secret.chmod(mode)
        arguments = ("a.example", "--out", str(tmp_path / f"{mode:o}"), "--passphrase-file", str(secret))
        result = dynpin("keys", "new", *arguments)
        assert (result.exit_code, f"chmod 600 {secret}" in result.stderr) == (0, told)


def test_the_line_of_the_inventory_names_each_backup_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_site(tmp_path, "a.example")
    backups = f'["next.pub.pem", {{ pin = "{Pin(b"x" * 32)}" }}]'
    Path("dynpin.toml").write_text(f'hosts = "a.example"\nkeys = "chain.pem"\nbackups = {backups}\n')
    result = dynpin("keys", "new", "--name", "next", "--passphrase-file", "-", stdin="long enough for us\n")
    assert f"\n  backups = {backups}\n" in result.stdout


def test_the_command_lists_keys_and_misses_backups(tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.example")
    own = key_type(public_key(site.chain.read_bytes()))
    alone = dynpin("keys", "list", str(site.chain), "--json")
    assert alone.exit_code == 1
    assert json.loads(alone.stdout)["missing_backups"] == [own.partition("-")[0]]
    files = write_key(new_key("ec-p256", ["a.example"], SECRET), tmp_path, "backup")
    result = dynpin("keys", "list", str(site.chain), "--backup", str(files["csr"]))
    assert (result.exit_code, str(Pin.from_file(files["csr"])) in result.stdout) == (0, True)
    refused = dynpin("keys", "list", str(files["private"]))
    assert (refused.exit_code, "encrypted" in refused.stderr) == (2, True)


@pytest.mark.parametrize(("backup", "said"), [("key", "certificate 0"), ("roots", "issued certificate 0")])
def test_a_key_of_the_validated_chain_is_no_backup(backup: str, said: str, tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.example")
    arguments = ("keys", "list", str(site.chain), "--backup", str(getattr(site, backup)))
    result = dynpin(*arguments)
    assert (result.exit_code, said in result.stderr, "no backup for ec" in result.stderr) == (1, True, True)
    listed = json.loads(dynpin(*arguments, "--json").stdout)
    assert said in listed["keys"][1]["in_chain"]
    assert listed["missing_backups"] == ["ec"]


def test_a_pipe_gets_pins_and_paths_uncut(tmp_path: Path) -> None:
    site = make_site(tmp_path / ("deep" * 40), "a.example")
    command = [sys.executable, "-m", "dynpin", "keys", "list", str(site.chain)]
    narrow = {**os.environ, "COLUMNS": "40", "FORCE_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=narrow)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("deployed")]
    assert line.split() == ["deployed", "ec-p256", str(Pin.from_file(site.chain)), os.path.relpath(site.chain)]
