"""`dynpin lint` with the files of a site: real certificates, each with a fault that the header does not show."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dynpin import Pin, PublicKeyPins
from tests.deploy.commands import dynpin
from tests.deploy.servers import program
from tests.deploy.test_check import HOST, NEW
from tests.keys import private_key

YEAR = timedelta(days=365)
HOUR, DAY = 3600, 86_400


class Files:
    """A folder with a CA of two levels, and the inventory of a site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = trustme.CA()
        self.issuer = self.root.create_child_ca()
        self.write("root.pem", self.root.cert_pem)
        self.write("issuer.pem", self.issuer.cert_pem)
        self.issue("chain.pem", HOST)
        self.policy = 'max_age = "30 days"'
        self.more = ""
        self.roots = '["root.pem"]'
        self.inventory(["chain.pem"], [NEW])

    def write(self, name: str, *blobs: trustme.Blob) -> Path:
        path = self.folder / name
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return path

    def issue(self, name: str, host: str, age: timedelta = timedelta()) -> Path:
        """The chain of a certificate that expires in a year, less `age`."""
        made = self.issuer.issue_cert(
            host, not_before=datetime.now(UTC) - 2 * YEAR, not_after=datetime.now(UTC) + YEAR - age
        )
        return self.write(name, *made.cert_chain_pems)

    def inventory(self, keys: list[str], backups: list[str | Pin], hosts: str = HOST) -> None:
        named = ", ".join(f'{{ pin = "{each}" }}' if isinstance(each, Pin) else f'"{each}"' for each in backups)
        top = f'hosts = ["{hosts}"]\nkeys = {json.dumps(keys)}\nbackups = [{named}]\nroots = {self.roots}'
        (self.folder / "dynpin.toml").write_text(f"{top}\n[policy]\n{self.policy}\n{self.more}\n")

    def reverse(self) -> None:
        pems = (self.folder / "chain.pem").read_bytes().split(b"-----BEGIN")[1:]
        (self.folder / "chain.pem").write_bytes(b"".join(b"-----BEGIN" + pem for pem in [*reversed(pems)]))

    def lint(self, *arguments: str, code: int) -> dict[str, str]:
        """The severity of each fault that is found."""
        result = dynpin("lint", "--json", *arguments)
        assert result.exit_code == code, result.output
        return {each["fault"]: each["severity"] for each in json.loads(result.stdout)}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.chdir(tmp_path)
    return Files(tmp_path)


def bare_key(files: Files) -> str:
    """A backup as it should be: the key alone."""
    made = dynpin("keys", "new", HOST, "--passphrase-file", "-", stdin="a passphrase that is long\n")
    assert made.exit_code == 0, made.output
    return next(path.name for path in files.folder.iterdir() if path.name.endswith(".pub.pem"))


def swap(files: Files) -> None:
    files.inventory([bare_key(files)], ["chain.pem"])


def reverse(files: Files) -> None:
    files.reverse()


def without_roots(files: Files) -> None:
    files.roots = "[]"
    files.inventory(["chain.pem"], [NEW])


FAULTY: dict[str, tuple[Callable[[Files], object], dict[str, str]]] = {
    "sound": (lambda files: None, {}),
    "a bare pin, perhaps the root's": (without_roots, {"backup-pin-unproven": "info"}),
    "expired": (
        lambda files: files.issue("chain.pem", HOST, YEAR + timedelta(days=1)),
        {"certificate-expired": "error"},
    ),
    "another host": (
        lambda files: files.issue("chain.pem", "api.example.com"),
        {"certificate-of-another-host": "error"},
    ),
    "another host's inventory": (
        lambda files: files.inventory(["chain.pem"], [NEW], "api.example.com"),
        {"certificate-of-another-host": "error"},
    ),
    "reverse order": (reverse, {"chain-out-of-order": "error"}),
    "an intermediate as leaf": (
        lambda files: files.inventory(["issuer.pem"], [NEW]),
        {"ca-certificate-as-leaf": "error"},
    ),
    "swapped": (swap, {"keys-and-backups-swapped": "error"}),
    "the issuer as backup": (
        lambda files: files.inventory(["chain.pem"], ["issuer.pem"]),
        {"backup-pin-in-chain": "error"},
    ),
    "the issuer as one backup": (
        lambda files: files.inventory(["chain.pem"], ["issuer.pem", NEW]),
        {"backup-pin-in-chain": "warning"},
    ),
    # The served file does not have it; clients have it in the chain that they validate.
    "the root as backup": (
        lambda files: files.inventory(["chain.pem"], ["root.pem"]),
        {"backup-pin-in-chain": "error"},
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), FAULTY.values(), ids=FAULTY)
def test_the_files_of_an_inventory(files: Files, spoil: Callable[[Files], object], expected: dict[str, str]) -> None:
    spoil(files)
    found = files.lint(code=1 if set(expected.values()) - {"info"} else 0)
    assert {fault: weight for fault, weight in found.items() if fault in expected} == expected
    assert set(found) - set(expected) <= {"policy-refused", "max-age-longer-than-certificate"}


SIZES: dict[str, tuple[Callable[[], Any], bool]] = {
    "RSA 1024": (lambda: rsa.generate_private_key(65537, 1024), True),
    "RSA 2048": (lambda: rsa.generate_private_key(65537, 2048), False),
    "P-521": (lambda: ec.generate_private_key(ec.SECP521R1()), False),
    "secp256k1": (lambda: ec.generate_private_key(ec.SECP256K1()), True),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, False),
    "X25519": (x25519.X25519PrivateKey.generate, True),
    "DSA": (lambda: private_key("dsa"), True),
}
# Newer releases of cryptography know more kinds of keys than TLS clients accept.
_ML_DSA = "cryptography.hazmat.primitives.asymmetric.mldsa"
if find_spec(_ML_DSA) is not None:
    SIZES["ML-DSA"] = (import_module(_ML_DSA).MLDSA44PrivateKey.generate, True)


@pytest.mark.parametrize(("make", "told"), SIZES.values(), ids=SIZES)
def test_a_backup_that_no_client_would_take(make: Callable[[], Any], told: bool, files: Files) -> None:
    public = make().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (files.folder / "backup.pub").write_bytes(public)
    files.inventory(["chain.pem"], ["backup.pub"])
    assert files.lint(code=int(told)) == ({"backup-key-unusable": "warning"} if told else {})


@pytest.mark.parametrize(("form", "told"), [("named_curve -conv_form compressed", False), ("explicit", True)])
def test_an_ec_backup_in_another_encoding(form: str, told: bool, files: Files) -> None:
    openssl = program("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    key = ec.generate_private_key(ec.SECP256R1())
    (files.folder / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    subprocess.run(
        [openssl, "ec", "-in", "key.pem", "-pubout", "-out", "backup.pub", "-param_enc", *form.split()],
        cwd=files.folder,
        check=True,
        capture_output=True,
    )
    files.inventory(["chain.pem"], ["backup.pub"])
    assert files.lint(code=int(told)) == ({"backup-key-unusable": "warning"} if told else {})


def test_what_the_policy_refuses_is_a_finding_in_the_words_of_toml(files: Files) -> None:
    files.policy = 'max_age = "100 days"'
    files.inventory(["chain.pem"], [NEW])
    result = dynpin("lint")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())
    assert "policy-refused" in said
    assert "[policy] allow_long_max_age = true" in said
    assert "timedelta" not in said


def test_an_unreadable_key_is_no_finding(files: Files) -> None:
    files.inventory(["absent.pem"], [NEW])
    result = dynpin("lint")
    assert (result.exit_code, "absent.pem cannot be read" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("seconds", "weight"),
    [(300, "warning"), (HOUR - 1, "warning"), (HOUR, "info"), (DAY, "info"), (14 * DAY, "info"), (15 * DAY, None)],
)
def test_a_first_hour_is_what_is_advised(seconds: int, weight: str | None, files: Files) -> None:
    files.policy = f"max_age = {seconds}"
    files.inventory(["chain.pem"], [NEW])
    assert files.lint(code=1 if weight == "warning" else 0).get("max-age-too-short") == weight


@pytest.mark.parametrize("seconds", [300, HOUR, DAY, 7 * DAY])
def test_a_step_of_the_ramp_is_no_fault(seconds: int, files: Files) -> None:
    files.policy = 'max_age = "30 days"\nreport_uri = "https://reports.example.net/r/TOKEN/enforce"'
    files.more = "[ramp]"
    files.inventory(["chain.pem"], [NEW])
    sent = PublicKeyPins((Pin.from_file(files.folder / "chain.pem"), NEW), seconds)
    assert files.lint(str(sent), code=0) == {}
    # What is not a step of it is what it always was.
    assert files.lint(str(PublicKeyPins(sent.pins, 301)), code=1) == {"max-age-too-short": "warning"}
    assert files.lint(code=0) == {}  # at the foot of the ramp: report-only


def test_a_header_beside_its_chain(files: Files) -> None:
    (files.folder / "dynpin.toml").unlink()
    (files.folder / "context.json").write_text(json.dumps({"host": "api.example.com"}))
    leaf, issuer = (Pin.from_file(files.folder / name) for name in ("chain.pem", "issuer.pem"))
    sound, all_in_chain = (str(PublicKeyPins((leaf, other), 30 * DAY)) for other in (NEW, issuer))
    beside = ("--chain", "chain.pem")
    assert files.lint(sound, *beside, code=0) == {}
    assert "backup-pin-missing-all-in-chain" in files.lint(all_in_chain, *beside, code=1)
    assert files.lint(sound, *beside, "--context", "context.json", code=1) == {"certificate-of-another-host": "error"}
    files.reverse()
    assert "chain-out-of-order" in files.lint(sound, *beside, code=1)
    files.issue("chain.pem", HOST, YEAR + timedelta(days=1))
    assert "certificate-expired" in files.lint(sound, *beside, code=1)


def test_certificates_of_circumstances_are_looked_at_too(files: Files) -> None:
    (files.folder / "dynpin.toml").unlink()
    files.issue("chain.pem", HOST, YEAR + timedelta(days=1))
    pem = (files.folder / "chain.pem").read_text()
    (files.folder / "context.json").write_text(json.dumps({"host": HOST, "anything": [pem]}))
    sent = str(PublicKeyPins((Pin.from_file(files.folder / "chain.pem"), NEW), 30 * DAY))
    assert files.lint(sent, "--context", "context.json", code=1) == {"certificate-expired": "error"}
