"""The guard lets OpenSSL decide whether clients accept a certificate, beside what dynpin knows by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.deploy.commands import dynpin
from tests.deploy.guard_certificates import Key, Shop, new_key, private_pem


def odd_key() -> Key:
    return ec.generate_private_key(ec.SECP256K1())


# The key of the site, the names of the new certificate, and what OpenSSL says of it.
REFUSED: dict[str, tuple[Callable[[], Key], str, str]] = {
    "a name with a dot at its end": (new_key, "shop.acme.test.", "Hostname mismatch"),
    "a key that no handshake takes": (odd_key, "shop.acme.test", "no shared cipher"),
}


def deployed(folder: Path, make: Callable[[], Key]) -> Shop:
    """A site with a key of this kind."""
    shop = Shop(folder)
    shop.key = make()
    (shop.tls / "fullchain.pem").write_bytes(shop.authority.chain(shop.key, Shop.HOST))
    (shop.tls / "privkey.pem").write_bytes(private_pem(shop.key))
    return shop


@pytest.mark.parametrize(("make", "name", "said"), REFUSED.values(), ids=REFUSED)
def test_a_certificate_that_clients_refuse(make: Callable[[], Key], name: str, said: str, tmp_path: Path) -> None:
    shop = deployed(tmp_path, make)
    renewed = shop.renewed(shop.authority.chain(shop.key, name))
    [reason] = asked(shop, renewed, code=1)["reasons"]
    assert reason["code"] == "clients-refuse-the-chain"
    assert said in reason["message"]
    assert "shop.acme.test" in reason["message"]


def test_a_wildcard_is_asked_for_a_name_below_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "*.acme.test", "acme.test")
    assert asked(shop, shop.renewed(shop.authority.chain(shop.key, "acme.test", "*.acme.test")), code=0)["ok"]


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
        assert (answer.exit_code, answer.stderr.strip()) == (2, f"dynpin: {shop.tls}: Is a directory")


def asked(shop: Shop, chain: Path, *options: str, code: int) -> Any:
    answer = dynpin("guard", str(chain), "--inventory", str(shop.inventory), *options, "--json")
    assert answer.exit_code == code, answer.output
    return json.loads(answer.stdout)
