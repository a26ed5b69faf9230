"""The guard lets OpenSSL decide whether clients accept a certificate, beside what dynpin knows by itself."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dynpin.hosts import canonical_host
from tests.deploy.commands import dynpin
from tests.deploy.guard_certificates import Shop, private_pem, public_pem


def test_a_name_that_no_client_takes_for_the_host(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    [reason] = asked(shop, shop.renewed(shop.authority.chain(shop.key, "shop.acme.test.")), code=1)["reasons"]
    assert reason["code"] == "clients-refuse-the-chain"
    assert "for shop.acme.test (OpenSSL: Hostname mismatch" in reason["message"]


def test_a_key_that_no_handshake_takes(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.backup = ec.generate_private_key(ec.SECP256K1())
    (tmp_path / "backup.pub").write_bytes(public_pem(shop.backup))
    assert dynpin("rotate", "record", *site_of(shop)).exit_code == 0
    renewed = shop.renewed(shop.authority.chain(shop.backup, Shop.HOST), shop.backup)
    [reason] = asked(shop, renewed, code=1)["reasons"]
    assert reason["code"] == "clients-refuse-the-chain"
    assert "no shared cipher" in reason["message"]
    # Where such a key is deployed, clients have the settings for it.
    (shop.tls / "fullchain.pem").write_bytes(shop.authority.chain(shop.backup, Shop.HOST))
    assert asked(shop, renewed, code=0)["ok"]


def test_a_key_that_is_too_small(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    renewed = shop.renewed(shop.authority.chain(shop.key, Shop.HOST))
    small = rsa.generate_private_key(65537, 1024)
    renewed.write_bytes(shop.authority.chain(small, Shop.HOST))  # type: ignore[arg-type] # any kind of key does
    renewed.with_name("privkey.pem").write_bytes(private_pem(small))  # type: ignore[arg-type]
    reason = asked(shop, renewed, code=1)["reasons"][0]
    assert (reason["code"], "at least 2048 bits" in reason["message"]) == ("private-key-unusable", True)


def test_a_certificate_that_only_openssl_reads_is_asked_for_all_the_same(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    chain = shop.authority.leaf(shop.key, Shop.HOST)
    der = ssl.PEM_cert_to_DER_cert(chain.decode()).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05")
    told = asked(shop, shop.renewed(ssl.DER_cert_to_PEM_cert(der).encode() + shop.authority.pem), code=1)
    assert [each["code"] for each in told["reasons"]] == ["clients-refuse-the-chain"]
    assert "certificate signature failure" in told["reasons"][0]["message"]
    assert "is malformed" in told["warnings"][0]


def test_a_chain_that_python_3_13_does_not_take(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    assert asked(shop, shop.renewed(shop.authority.chain(shop.key, Shop.HOST)), code=0)["warnings"] == []
    shop.authority.strict = False
    told = asked(shop, shop.renewed(shop.authority.chain(shop.key, Shop.HOST)), code=0)
    assert [
        "clients on Python 3.13 or later refuse" in each and "Missing Authority Key Identifier" in each
        for each in told["warnings"]
    ] == [True]


def test_a_wildcard_is_asked_for_a_name_below_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "*.acme.test", "acme.test")
    assert asked(shop, shop.renewed(shop.authority.chain(shop.key, "acme.test", "*.acme.test")), code=0)["ok"]


@pytest.mark.parametrize(
    "hosts", [("shop.acme.test.",), ("faß.acme.test",), ("bücher.acme.test",), ("shop.acme.test", "192.0.2.1")]
)
def test_a_host_is_asked_for_as_clients_ask_and_an_address_not_at_all(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    name = canonical_host(hosts[0])
    shop = Shop(tmp_path, name)
    shop.hosts = hosts
    shop.describe("tls/fullchain.pem", "backup.pub", "next.pub")
    assert asked(shop, shop.renewed(shop.authority.chain(shop.key, name)), code=0)["ok"]


def test_a_certificate_without_names_is_a_fault_and_no_other_site(tmp_path: Path) -> None:
    # A CA that writes a common name alone has renewed it: nobody would hear of it if that were skipped.
    shop = Shop(tmp_path)
    nameless = shop.authority.leaf(shop.key, Shop.HOST, named=False)
    install = ("--install", str(shop.tls), "--skip-other-sites")
    assert asked(shop, shop.renewed(nameless), *install, code=1)["skipped"] is False


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    chain = str(shop.renewed(shop.authority.chain(shop.key, Shop.HOST)))
    for arguments in ((str(shop.tls),), (chain, "--key", str(shop.tls))):
        answer = dynpin("guard", *arguments, "--inventory", str(shop.inventory))
        assert (answer.exit_code, answer.stderr.strip()) == (
            2,
            f"dynpin: {shop.tls}: Is a directory; name a file in it",
        )


def site_of(shop: Shop) -> tuple[str, ...]:
    return ("--inventory", str(shop.inventory), "--history", str(shop.folder / "history.json"))


def asked(shop: Shop, chain: Path, *options: str, code: int) -> Any:
    answer = dynpin("guard", str(chain), *site_of(shop), *options, "--json")
    assert answer.exit_code == code, answer.output
    return json.loads(answer.stdout)
