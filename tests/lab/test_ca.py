"""`dynpin lab ca`: its certificate serves the name that it is for, to whoever trusts its root."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.deploy.commands import dynpin
from tests.deploy.servers import Site, fetch, tls_server


def test_the_certificate_serves_whoever_trusts_the_root(tmp_path: Path) -> None:
    result = dynpin("lab", "ca", str(tmp_path / "tls"), "localhost")
    assert (result.exit_code, result.stderr) == (0, "")
    folder = tmp_path / "tls"
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "fullchain.pem", "privkey.pem"]
    assert stat.S_IMODE((folder / "privkey.pem").stat().st_mode) == 0o600
    both = tmp_path / "both.pem"
    both.write_bytes((folder / "privkey.pem").read_bytes() + (folder / "fullchain.pem").read_bytes())
    site = Site(folder, folder / "ca.pem", folder / "fullchain.pem", folder / "privkey.pem", both)
    with tls_server(site) as port:
        assert fetch(site, port, "/", "Content-Length") == (200, ["2"])


@pytest.mark.parametrize(("host", "said"), [("10.0.0.1", "is an IP address"), ("a b", "is not a host name")])
def test_what_cannot_be_pinned_gets_no_certificate(host: str, said: str, tmp_path: Path) -> None:
    result = dynpin("lab", "ca", str(tmp_path / "tls"), host)
    assert (result.exit_code, said in result.stderr, (tmp_path / "tls").exists()) == (2, True, False)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "privkey.pem").write_text("mine")
    result = dynpin("lab", "ca", str(tmp_path), "localhost")
    assert (result.exit_code, "not overwritten" in result.stderr) == (2, True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
