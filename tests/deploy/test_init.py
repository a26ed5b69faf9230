"""`dynpin init`: from a chain or a live host to a dynpin.toml that a server can start with, or nothing at all."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import tomllib
from collections.abc import Generator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509

from dynpin import Pin, PublicKeyPins
from dynpin.lab.certificates import Authority, KeyPair
from dynpin.lab.network import TLSServer
from dynpin.middleware.policy import read_inventory
from tests.deploy.commands import at_a_terminal, dynpin
from tests.deploy.servers import Site, make_site, tls_server

SECRET = "long enough for us"


def init(*arguments: str, secret: str = SECRET) -> Any:
    return dynpin("init", *arguments, "--passphrase-file", "-", stdin=f"{secret}\n")


def test_a_chain_becomes_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    site = make_site(tmp_path / "tls", "a.example", "*.a.example", "10.0.0.1")
    result = init("tls/chain.pem")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "backup.csr.pem",
        "backup.key.pem",
        "backup.pub.pem",
        "dynpin.toml",
        "tls",
    ]
    assert stat.S_IMODE(Path("backup.key.pem").stat().st_mode) == 0o600
    text = Path("dynpin.toml").read_text()
    assert tomllib.loads(text) == {
        "hosts": ["a.example", "*.a.example"],
        "keys": ["tls/chain.pem"],
        "backups": ["backup.pub.pem"],
        "remember": "dynpin-sent.txt",
        "policy": {"max_age": "1 hour"},
    }
    # Each line is explained by the one above it.
    lines = text.splitlines()
    settings = [number for number, line in enumerate(lines) if re.match("#? ?[a-z_]+ =", line)]
    assert len(settings) == 6
    assert all(lines[number - 1].startswith("# ") for number in settings)
    header = read_inventory("dynpin.toml").build().header
    assert header.pins == (Pin.from_file(site.chain), Pin.from_file("backup.pub.pem"))
    names = x509.load_pem_x509_csr(Path("backup.csr.pem").read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["a.example", "*.a.example"]
    assert names.value.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.1")]
    assert "Move backup.key.pem off this machine" in result.stdout
    assert "dynpin check https://a.example/" in result.stdout


def test_a_wildcard_is_no_address_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_site(tmp_path / "tls", "*.a.example")
    result = init("tls/chain.pem")
    assert (result.exit_code, "dynpin check https://NAME.a.example/" in result.stdout) == (0, True), result.output


def test_a_backup_key_is_of_the_deployed_type_and_json_tells_all(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("a.example", key_type=trustme.KeyType.RSA)
    chain = tmp_path / "chain.pem"
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    result = init(str(chain), "--out", str(tmp_path / "new" / "site"), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["backup"]["type"] == "rsa-2048"
    assert told["hosts"] == ["a.example"]
    assert told["header"] == str(read_inventory(tmp_path / "new" / "site" / "dynpin.toml").build().header)
    assert all(Path(file).is_file() for file in told["files"])
    assert read_inventory(tmp_path / "new" / "site" / "dynpin.toml").keys == (chain,)
    kept = init(str(chain), "--out", str(tmp_path / "other"), "--json", "--type", "ec-p384")
    assert json.loads(kept.stdout)["backup"]["type"] == "ec-p384"


@pytest.mark.parametrize(
    "verb", [("init",), ("export",), ("keys", "new"), ("keys", "list"), ("lab", "ca")], ids=" ".join
)
def test_the_help_has_an_example(verb: tuple[str, ...]) -> None:
    shown = dynpin(*verb, "--help").stdout
    assert re.search(rf"Examples?:\s+dynpin {' '.join(verb)} ", shown)
    assert "--now" not in shown


# -- a live host -------------------------------------------------------------------------------------------------------


@dataclass
class Live:
    server: TLSServer
    certificate: trustme.LeafCert
    ca: Path

    @property
    def name(self) -> str:
        return f"localhost:{self.server.port}"


@pytest.fixture
def live(tmp_path: Path) -> Generator[Live]:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "www.localhost")
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    with TLSServer(certificate) as server:
        yield Live(server, certificate, ca)


def test_the_chain_of_a_live_host_is_saved(live: Live, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    result = init(live.name, "--ca", str(live.ca), "--out", str(folder))
    assert result.exit_code == 0, result.output
    assert "header   none yet" in result.stdout
    assert f"dynpin check https://{live.name}/ --ca {live.ca}\n" in result.stdout
    leaf = live.certificate.cert_chain_pems[0].bytes()
    assert Pin.from_file(folder / "chain.pem") == Pin.from_certificate(leaf)
    inventory = read_inventory(folder / "dynpin.toml")
    assert (inventory.hosts, inventory.roots) == (("localhost", "www.localhost"), (live.ca,))
    assert "This is a copy" in (folder / "dynpin.toml").read_text()


def test_the_chain_file_of_the_server_is_named_where_it_is_the_right_one(live: Live, tmp_path: Path) -> None:
    chain = tmp_path / "fullchain.pem"
    chain.write_bytes(live.certificate.cert_chain_pems[0].bytes())
    result = init(f"https://{live.name}/", "--ca", str(live.ca), "--keys", str(chain), "--out", str(tmp_path / "site"))
    assert result.exit_code == 0, result.output
    assert read_inventory(tmp_path / "site" / "dynpin.toml").keys == (chain,)
    assert not (tmp_path / "site" / "chain.pem").exists()
    other = make_site(tmp_path / "other", "localhost").chain
    refused = init(live.name, "--ca", str(live.ca), "--keys", str(other), "--out", str(tmp_path / "third"))
    assert (refused.exit_code, f"localhost shows {Pin.from_file(chain)}" in refused.stderr) == (1, True)
    assert not (tmp_path / "third").exists()


def test_the_pins_that_a_site_sends_already_stay_in_reserve(live: Live, tmp_path: Path) -> None:
    own, old = Pin.from_certificate(live.certificate.cert_chain_pems[0].bytes()), Pin(b"o" * 32)
    live.server.headers = [("Public-Key-Pins", str(PublicKeyPins((own, old), 5_184_000)))]
    result = init(live.name, "--ca", str(live.ca), "--out", str(tmp_path / "site"))
    assert result.exit_code == 0, result.output
    assert f'backups = ["backup.pub.pem", {{ pin = "{old}" }}]' in (tmp_path / "site" / "dynpin.toml").read_text()


def test_nodes_that_show_different_keys_cannot_be_pinned_by_one_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(roots)
    sites = [_issued(authority, tmp_path / name) for name in ("one", "two")]
    with tls_server(sites[0]) as port, tls_server(sites[1], "127.0.0.2", port):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.1", "127.0.0.2")]
        real = socket.getaddrinfo
        monkeypatch.setattr(
            "socket.getaddrinfo", lambda host, *rest, **more: found if host == "two.test" else real(host, *rest, **more)
        )
        result = init(f"two.test:{port}", "--ca", str(roots), "--out", str(tmp_path / "site"))
    assert (result.exit_code, "show different keys" in result.stderr) == (1, True), result.output
    for site, address in zip(sites, ("127.0.0.1", "127.0.0.2"), strict=True):
        assert f"{address} shows {Pin.from_file(site.chain)}" in result.stderr
    assert not (tmp_path / "site").exists()


def _issued(authority: trustme.CA, folder: Path) -> Site:
    folder.mkdir()
    certificate = authority.issue_cert("two.test")
    site = Site(folder, *(folder / name for name in ("roots.pem", "chain.pem", "key.pem", "both.pem")))
    certificate.private_key_and_cert_chain_pem.write_to_path(site.both)
    certificate.cert_chain_pems[0].write_to_path(site.chain)
    return site


# -- what is refused leaves the folder as it was -----------------------------------------------------------------------


def _chains(folder: Path) -> None:
    authority = Authority("Test CA").intermediate("Test CA 2")
    key = KeyPair("key", "site")
    good = authority.issue("a.example", key)
    (folder / "good.pem").write_bytes(good.pem)
    (folder / "expired.pem").write_bytes(authority.issue("a.example", key, expired=True).pem)
    (folder / "reversed.pem").write_bytes(authority.pem + good.pem)
    (folder / "address.pem").write_bytes(trustme.CA().issue_cert("10.0.0.1").cert_chain_pems[0].bytes())
    (folder / "nobody.pem").write_bytes(authority.pem)
    (folder / "root.pem").write_bytes(Authority("Test CA").pem)
    (folder / "key.pem").write_bytes(key.public_pem)
    (folder / "no roots.pem").write_text("no roots")
    (folder / "empty").touch()
    (folder / "broken").symlink_to("nowhere")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("expired.pem",), 1, "expired on"),
        (("reversed.pem",), 1, "reverse order"),
        (("nobody.pem",), 1, "is a CA certificate"),
        (("root.pem",), 1, "names no host"),
        (("address.pem",), 2, "10.0.0.1 is an IP address"),
        (("10.0.0.1",), 2, "10.0.0.1 is an IP address"),
        (("key.pem",), 2, "holds no certificate"),
        (("empty",), 2, "empty: "),
        (("tls/nowhere.pem",), 2, "there is no file tls/nowhere.pem"),
        (("nowhere.invalid",), 2, "nowhere.invalid does not resolve"),
        (("good.pem", "--keys", "good.pem"), 2, "leave --keys out"),
        (("good.pem", "--out", "empty"), 2, "empty is a file"),
        (("good.pem", "--out", "broken"), 2, "broken is a link to a place that does not exist"),
        (("good.pem", "--ca", "no roots.pem"), 1, "holds no roots that can be read"),
        (("localhost:9", "--ca", "no roots.pem"), 2, "holds no roots that can be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_refused(
    arguments: tuple[str, ...], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _chains(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = init(*arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_may_be_a_link_and_is_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _chains(tmp_path)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    before = os.umask(0)
    try:
        result = init("good.pem", "--out", "link/site")
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.output
    assert 'keys = ["../../../good.pem"]' in (tmp_path / "link" / "site" / "dynpin.toml").read_text()
    assert stat.S_IMODE((tmp_path / "far" / "away" / "site").stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["dynpin.toml", "backup.key.pem", "backup.pub.pem", "backup.csr.pem"])
def test_nothing_is_overwritten_nor_asked(name: str, tmp_path: Path) -> None:
    _chains(tmp_path)
    (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.iterdir())
    result = init(str(tmp_path / "good.pem"), "--out", str(tmp_path))
    assert (result.exit_code, f"{name} exists" in result.stderr) == (2, True)
    assert ((tmp_path / name).read_text(), sorted(tmp_path.iterdir())) == ("mine", before)


@pytest.mark.parametrize(("answer", "code"), [("\x03", 130), ("\x04", 2)], ids=["Ctrl-C", "end of input"])
def test_who_stops_at_the_passphrase_leaves_nothing(answer: str, code: int, tmp_path: Path) -> None:
    _chains(tmp_path)
    shown, ended = at_a_terminal(["init", str(tmp_path / "good.pem"), "--out", str(tmp_path / "site")], [answer])
    assert ended == code, shown
    assert not (tmp_path / "site").exists()


def test_a_short_passphrase_leaves_nothing(tmp_path: Path) -> None:
    _chains(tmp_path)
    result = init(str(tmp_path / "good.pem"), "--out", str(tmp_path / "site"), secret="short")
    assert (result.exit_code, "needs 12 or more" in result.stderr) == (2, True)
    assert not (tmp_path / "site").exists()


def test_what_is_interrupted_while_it_writes_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _chains(tmp_path)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dynpin.deploy.init.read_inventory", stopped)
    result = init(str(tmp_path / "good.pem"), "--out", str(tmp_path / "new" / "site"))
    assert result.exit_code == 130
    assert not (tmp_path / "new").exists()
