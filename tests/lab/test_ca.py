"""`dynpin lab ca`: a client that trusts its root accepts its certificate for its name."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from dynpin import Pin
from dynpin.deploy.keys import new_key
from tests.deploy.commands import dynpin
from tests.deploy.servers import Site, fetch, program, tls_server


def test_the_certificate_works_for_clients_that_trust_the_root(tmp_path: Path) -> None:
    result = dynpin("lab", "ca", str(tmp_path / "tls"), "localhost")
    assert (result.exit_code, result.stderr) == (0, "")
    folder = tmp_path / "tls"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key.pem": 0o600, "fullchain.pem": 0o644, "privkey.pem": 0o600}
    both = tmp_path / "both.pem"
    both.write_bytes((folder / "privkey.pem").read_bytes() + (folder / "fullchain.pem").read_bytes())
    site = Site(folder, folder / "ca.pem", folder / "fullchain.pem", folder / "privkey.pem", both)
    with tls_server(site) as port:
        assert fetch(site, port, "/", "Content-Length") == (200, ["2"])


def test_its_key_signs_the_csr_of_a_backup_key(tmp_path: Path) -> None:
    assert dynpin("lab", "ca", str(tmp_path), "localhost").exit_code == 0
    key = new_key("ec-p256", ["localhost"], b"long enough for us")
    (tmp_path / "backup.csr.pem").write_bytes(key.csr_pem)
    openssl = program("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    command = [openssl, "x509", "-req", "-in", "backup.csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key.pem"]
    command += ["-copy_extensions", "copy", "-days", "90", "-out", "next.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    verify = [openssl, "verify", "-CAfile", "ca.pem", "-verify_hostname", "localhost", "next.pem"]
    subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert Pin.from_file(tmp_path / "next.pem") == key.pin


@pytest.mark.parametrize(("host", "said"), [("10.0.0.1", "is an IP address"), ("a b", "is not a host name")])
def test_a_host_that_cannot_be_pinned_gets_no_certificate(host: str, said: str, tmp_path: Path) -> None:
    result = dynpin("lab", "ca", str(tmp_path / "tls"), host)
    assert (result.exit_code, said in result.stderr, (tmp_path / "tls").exists()) == (2, True, False)


def test_a_folder_in_one_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = dynpin("lab", "ca", str(tmp_path / "no" / "such"), "localhost")
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "no such folder; make it first" in done.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "privkey.pem").write_text("mine")
    result = dynpin("lab", "ca", str(tmp_path), "localhost")
    assert (result.exit_code, "not overwritten" in result.stderr) == (2, True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
