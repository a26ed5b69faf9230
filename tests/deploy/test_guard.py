"""The guard looks at a certificate, its key and the plan before it says a word about pins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from dynpin import PublicKeyPins
from dynpin.deploy.rotation import Deployed, History, Planned, Published
from dynpin.middleware import Policy
from dynpin.middleware.policy import read_inventory
from tests.deploy.commands import dynpin
from tests.deploy.guard_certificates import DAY, NOW, Authority, Shop, new_key, pin_of, private_pem

MONTH = 30 * 86_400


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    return made


def asked(chain: Path, *options: str, code: int) -> Any:
    answer = dynpin("guard", str(chain), *options, "--json")
    assert answer.exit_code == code, answer.output
    return json.loads(answer.stdout)


def codes(seen: Any) -> list[str]:
    return [reason["code"] for reason in seen["reasons"]]


def test_a_renewal_with_the_same_key(shop: Shop) -> None:
    renewed = shop.renewed(shop.authority.chain(shop.key, Shop.HOST))
    seen = asked(renewed, code=0)
    assert (seen["ok"], seen["reasons"], seen["warnings"]) == (True, [], [])
    assert (seen["host"], seen["key"]) == (Shop.HOST, str(pin_of(shop.key)))
    told = dynpin("guard", str(renewed))
    assert told.stdout.startswith(f"fine: every policy that clients of {Shop.HOST} hold names a key of this chain.")


# What is wrong with the certificate, though its key is the pinned one.
FAULTS: dict[str, Callable[[Shop], bytes]] = {
    "certificate-of-another-host": lambda shop: shop.authority.chain(shop.key, "api.acme.test"),
    "certificate-expired": lambda shop: shop.authority.leaf(shop.key, Shop.HOST, start=NOW - 2 * DAY, end=NOW - DAY),
    "certificate-not-yet-valid": lambda shop: shop.authority.leaf(shop.key, Shop.HOST, start=NOW + DAY),
    "self-signed-certificate": lambda shop: shop.authority.leaf(shop.key, Shop.HOST, self_signed=True),
    "chain-without-root": lambda shop: Authority().leaf(shop.key, Shop.HOST),
    "chain-out-of-order": lambda shop: shop.authority.pem + shop.authority.leaf(shop.key, Shop.HOST),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_certificate_with_a_pinned_key(fault: str, shop: Shop) -> None:
    renewed = shop.renewed(FAULTS[fault](shop))
    seen = asked(renewed, code=1)
    assert codes(seen)[0] == fault
    assert "fine" not in dynpin("guard", str(renewed)).stdout


def test_the_certificate_of_a_ca(shop: Shop) -> None:
    seen = asked(shop.renewed(shop.authority.pem + Authority().pem), code=1)
    assert codes(seen)[0] == "ca-certificate-as-leaf"
    assert codes(seen)[-1] == "clients-locked-out"


@pytest.mark.parametrize("pinned", ["leaf", "chain"])
def test_a_certificate_that_issued_nothing_is_in_no_validated_chain(pinned: str, shop: Shop) -> None:
    """Clients do not see it, though it is in the file: its pin saves nobody (RFC 7469 §2.6)."""
    shop.inventory.write_text(f'pinned = "{pinned}"\n{shop.inventory.read_text()}')
    dynpin("rotate", "record")
    issuer, unknown = Authority(), new_key()
    stray = shop.authority.chain(shop.key, Shop.HOST)
    seen = asked(shop.renewed(issuer.chain(unknown, Shop.HOST) + stray, unknown), code=1)
    assert "clients-locked-out" in codes(seen)
    seen = asked(shop.renewed(issuer.chain(shop.next, Shop.HOST) + stray, shop.next), code=1)
    assert "clients-locked-out" not in codes(seen)
    # Nor is it a part of what the history has as deployed.
    (shop.folder / "deployed.pem").write_bytes(issuer.chain(unknown, Shop.HOST) + stray)
    told = dynpin("rotate", "record", "--chain", "deployed.pem")
    assert (told.exit_code, "clients are locked out now" in told.output) == (1, True), told.output


def test_every_reason_is_listed(shop: Shop) -> None:
    expired = shop.authority.leaf(new_key(), "api.acme.test", start=NOW - 2 * DAY, end=NOW - DAY)
    seen = asked(shop.renewed(expired, shop.key), code=1)
    assert set(codes(seen)) == {
        "certificate-expired",
        "certificate-of-another-host",
        "private-key-of-another-certificate",
        "clients-locked-out",
    }
    assert seen["ready_at"] is None
    told = dynpin("guard", str(shop.folder / "renewed/fullchain.pem")).stdout
    assert told.count("STOP: ") == 4


def test_a_certificate_for_one_of_two_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path, Shop.HOST, "pay.acme.test")
    monkeypatch.chdir(tmp_path)
    # The present chain, which is for both, is the one that goes.
    seen = asked(shop.renewed(shop.authority.chain(shop.key, Shop.HOST)), code=1)
    assert codes(seen) == ["certificate-of-another-host"]
    assert "pay.acme.test" in seen["reasons"][0]["message"]


def test_one_of_two_chains_is_renewed(shop: Shop) -> None:
    other = new_key()
    (shop.tls / "pay.pem").write_bytes(shop.authority.chain(other, "pay.acme.test"))
    text = shop.inventory.read_text().replace('["tls/fullchain.pem"]', '["tls/fullchain.pem", "tls/pay.pem"]')
    shop.inventory.write_text(text.replace(f'"{Shop.HOST}"', f'"{Shop.HOST}", "pay.acme.test"'))
    assert asked(shop.renewed(shop.authority.chain(other, "pay.acme.test"), other), code=0)["reasons"] == []
    assert asked(shop.renewed(shop.authority.chain(shop.key, Shop.HOST)), code=0)["reasons"] == []
    wrong = asked(shop.renewed(shop.authority.chain(other, "elsewhere.test"), other), code=1)
    assert codes(wrong) == ["certificate-of-another-host"]


def test_the_key_of_another_certificate(shop: Shop) -> None:
    renewed = shop.renewed(shop.authority.chain(shop.key, Shop.HOST), new_key())
    assert codes(asked(renewed, code=1)) == ["private-key-of-another-certificate"]
    # The one that is named goes before the one that lies beside.
    assert codes(asked(renewed, "--key", str(shop.tls / "privkey.pem"), code=0)) == []


def test_a_key_that_no_server_can_read(shop: Shop) -> None:
    renewed = shop.renewed(shop.authority.chain(shop.key, Shop.HOST))
    key = renewed.with_name("privkey.pem")
    key.write_bytes(shop.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    assert codes(asked(renewed, code=1)) == ["private-key-encrypted"]
    key.write_bytes(b"# not ENCRYPTED\n" + private_pem(shop.key))
    assert codes(asked(renewed, code=0)) == []
    key.write_text("no key")
    assert codes(asked(renewed, code=1)) == ["private-key-unusable"]
    key.unlink()
    assert dynpin("guard", str(renewed), "--key", str(key)).exit_code == 2
    os.mkfifo(key)
    assert "is a pipe, and it is read several times: name the file" in dynpin("guard", str(renewed)).stderr


def test_without_a_key_it_says_so(shop: Shop) -> None:
    renewed = shop.renewed(shop.authority.chain(shop.key, Shop.HOST))
    renewed.with_name("privkey.pem").unlink()
    assert any("private key" in line for line in asked(renewed, code=0)["not_seen"])


def test_a_header_alone_knows_no_hosts_and_is_not_called_fine(shop: Shop) -> None:
    renewed = shop.renewed(shop.authority.chain(shop.key, "api.acme.test"))
    header = str(read_inventory(shop.inventory).build().header)
    told = dynpin("guard", str(renewed), "--header", header)
    assert (told.exit_code, told.stdout.startswith("fine")) == (0, False)
    assert "Not seen: whether the certificate is for the right hosts" in told.stdout
    # With the inventory beside it, it knows them.
    assert dynpin("guard", str(renewed), "--header", header, "--inventory", "dynpin.toml").exit_code == 1


def test_a_history_alone_knows_its_host(shop: Shop) -> None:
    write(History(Shop.HOST, (Published(start(), read_inventory(shop.inventory).build().header),)))
    shop.inventory.unlink()
    seen = asked(shop.renewed(shop.authority.chain(shop.key, "api.acme.test")), code=1)
    assert codes(seen) == ["certificate-of-another-host"]
    assert any("dynpin.toml" in line for line in seen["not_seen"])


def test_the_present_certificate_has_expired(shop: Shop) -> None:
    # Then the new one is what helps, and a guard that cannot read the site would stand in its way.
    (shop.tls / "fullchain.pem").write_bytes(
        shop.authority.leaf(shop.key, Shop.HOST, start=NOW - 90 * DAY, end=NOW - DAY)
    )
    assert asked(shop.renewed(shop.authority.chain(shop.key, Shop.HOST)), code=0)["ok"]


def test_what_no_header_can_be_made_of_afterwards_is_told(shop: Shop) -> None:
    shop.describe("tls/fullchain.pem", "backup.pub")
    write(History(Shop.HOST, (Published(start(), read_inventory(shop.inventory).build().header),)))
    seen = asked(shop.renewed(shop.authority.chain(shop.backup, Shop.HOST), shop.backup), code=0)
    assert any("no header is sent until dynpin.toml is changed" in line for line in seen["warnings"])


# -- the plan ---------------------------------------------------------------------------------------------------------


def start() -> float:
    return (NOW - 60 * DAY).timestamp()


def write(history: History) -> None:
    Path("dynpin-history.json").write_text(history.to_json())


def test_the_history_says_that_a_header_was_published_and_the_inventory_never_made_it(shop: Shop) -> None:
    new = new_key()
    sent = read_inventory(shop.inventory).build().header
    bridge = PublicKeyPins((pin_of(shop.key), pin_of(new), pin_of(shop.backup)), MONTH)
    write(
        History(
            Shop.HOST,
            (
                Published(start(), sent),
                Deployed(start(), (pin_of(shop.key),)),
                Planned(start(), pin_of(new), (pin_of(shop.backup),)),
                Published(start() + 1, bridge),
            ),
        )
    )
    # By the history alone a month is over, and everybody knows the new key.
    seen = asked(shop.renewed(shop.authority.chain(new, Shop.HOST), new), code=1)
    assert codes(seen) == ["history-not-made", "clients-locked-out"]
    message = seen["reasons"][0]["message"]
    assert "the history has this published header, but dynpin.toml does not make it" in message
    assert any("put it into backups" in line for line in seen["advice"])
    # The key that every header names may be renewed all the same.
    renewal = asked(shop.renewed(shop.authority.chain(shop.key, Shop.HOST)), code=0)
    assert any("dynpin.toml does not make it" in line for line in renewal["warnings"])


def test_a_step_that_was_left_out_and_hidden_by_the_next_one(shop: Shop) -> None:
    # The bridge was recorded and never sent; then dynpin.toml was changed to the last header of the rotation.
    old, new = pin_of(shop.key), shop.next
    first = PublicKeyPins((old, pin_of(shop.backup)), MONTH)
    bridge = PublicKeyPins((old, pin_of(new), pin_of(shop.backup)), MONTH)
    write(History(Shop.HOST, (Published(start(), first), Published(start() + 1, bridge))))
    shop.describe("tls/fullchain.pem", "next.pub")
    seen = asked(shop.renewed(shop.authority.chain(new, Shop.HOST), new), code=1)
    assert codes(seen) == ["history-not-made", "clients-locked-out"]


def test_an_inventory_that_has_more_pins_than_the_history_is_believed(shop: Shop) -> None:
    first = PublicKeyPins((pin_of(shop.key), pin_of(shop.backup)), MONTH)
    write(History(Shop.HOST, (Published(start(), first),)))
    assert asked(shop.renewed(shop.authority.chain(shop.backup, Shop.HOST), shop.backup), code=0)["warnings"] == []
    # It is sent from now on, as far as anybody knows, so its new key is too fresh.
    late = asked(shop.renewed(shop.authority.chain(shop.next, Shop.HOST), shop.next), code=1)
    assert codes(late) == ["clients-locked-out"]


def test_a_ramp_whose_state_was_lost_is_not_called_unused(shop: Shop) -> None:
    """The history has the report-only header of the first day, and the new state begins there again."""
    report = 'report_uri = "https://reports.acme.example/r/token/enforce"\n[ramp]\n'
    shop.inventory.write_text(shop.inventory.read_text() + report)
    assert dynpin("rotate", "record").exit_code == 0
    unknown = new_key()
    renewed = shop.renewed(shop.authority.chain(unknown, Shop.HOST), unknown)
    assert asked(renewed, code=0)["locked_out"] == []
    history = shop.folder / "dynpin-history.json"
    history.write_text(history.read_text().replace(f"{NOW:%Y-%m-%d}", f"{NOW - 60 * DAY:%Y-%m-%d}"))
    assert codes(asked(renewed, code=1)) == ["clients-locked-out"]
    assert "it is unknown what the ramp sent" in dynpin("guard", str(renewed)).stderr


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_key_that_was_deployed_without_the_guard_is_not_fine_afterwards(is_recorded: bool, shop: Shop) -> None:
    """dynpin.toml pins the deployed key, whichever it is. The server's own file has the header that clients got."""
    shop.inventory.write_text(f'remember = "sent.txt"\n{shop.inventory.read_text()}')
    last = Policy.from_inventory(shop.inventory).header
    slipped = new_key()
    chain = shop.authority.chain(slipped, Shop.HOST)
    (shop.tls / "fullchain.pem").write_bytes(chain)
    if is_recorded:
        dynpin("rotate", "record")
    seen = asked(shop.renewed(chain, slipped), code=1)
    assert codes(seen) == ["clients-locked-out"]
    assert [each["header"] for each in seen["locked_out"]] == [str(last)]
    enforcing = shop.inventory.read_text()
    shop.inventory.write_text(
        enforcing.replace("[policy]", '[policy]\nmode = "report-only"\nreport_uri = "https://reports.test/"')
    )
    assert codes(asked(shop.renewed(chain, slipped), code=1)) == ["clients-locked-out"]
    shop.inventory.write_text(enforcing)
    pinned = asked(shop.renewed(shop.authority.chain(shop.key, Shop.HOST)), code=1)  # visitors since then pin the other
    assert str(last) not in [each["header"] for each in pinned["locked_out"]]
    if not is_recorded:
        # What unpins ends that: the server does not write the file any more.
        shop.inventory.write_text(shop.inventory.read_text().replace("[policy]", '[policy]\nmode = "unpin"'))
        assert codes(json.loads(dynpin("guard", "renewed/fullchain.pem", "--json").stdout)) == ["key-without-history"]


def test_a_header_that_the_server_has_not_taken_yet_is_not_sent(shop: Shop) -> None:
    full = f'remember = "sent.txt"\n{shop.inventory.read_text()}'
    shop.inventory.write_text(full.replace(', "next.pub"', ""))
    Policy.from_inventory(shop.inventory)
    shop.inventory.write_text(full)
    dynpin("rotate", "record")
    renewed = shop.renewed(shop.authority.chain(shop.next, Shop.HOST), shop.next)
    assert codes(asked(renewed, code=1)) == ["clients-locked-out"]
    assert "dynpin.toml makes other pins; both count" in dynpin("guard", str(renewed)).stderr
    Policy.from_inventory(shop.inventory)
    assert codes(asked(renewed, code=0)) == []


def test_without_a_history_a_key_that_was_never_deployed_does_not_pass(shop: Shop) -> None:
    # Perhaps it was put into dynpin.toml a minute ago.
    renewed = shop.renewed(shop.authority.chain(shop.backup, Shop.HOST), shop.backup)
    assert codes(asked(renewed, code=1)) == ["key-without-history"]
    text = shop.inventory.read_text()
    # Perhaps the mode was put there a minute ago.
    shop.inventory.write_text(f'{text}mode = "report-only"\nreport_uri = "https://reports.test/r"\n')
    assert codes(asked(renewed, code=1)) == ["key-without-history"]
    shop.inventory.write_text(text)
    # A history that has no header says nothing about headers.
    for events in ((), (Deployed(start(), (pin_of(shop.key),)),), (Planned(start(), pin_of(shop.backup), ()),)):
        write(History(Shop.HOST, events))
        silent = asked(renewed, code=1)
        assert codes(silent) == ["key-without-history"]
        assert "what was sent so far" in silent["not_seen"][0]
    write(History(Shop.HOST, (Published(start(), read_inventory(shop.inventory).build().header),)))
    assert asked(renewed, code=0)["ok"]


def test_the_history_of_another_site(shop: Shop) -> None:
    write(History("api.acme.test", (Published(start(), PublicKeyPins((pin_of(shop.key),), MONTH)),)))
    refused = dynpin("guard", str(shop.renewed(shop.authority.chain(shop.key, Shop.HOST))))
    assert (refused.exit_code, "api.acme.test" in refused.stderr, Shop.HOST in refused.stderr) == (2, True, True)


def test_wrong_usage(shop: Shop) -> None:
    renewed = shop.renewed(shop.authority.chain(shop.key, Shop.HOST))
    (shop.folder / "key.pem").write_bytes(private_pem(shop.key))
    chain = shop.folder / "chain.pem"
    chain.write_bytes(renewed.read_bytes())
    for arguments, said in (
        ((), "name the chain"),
        ((str(renewed), "--reload", "true"), "--install"),
        ((str(renewed), "--skip-other-sites"), "--install"),
        ((str(chain), "--install", "tls"), "--key FILE"),
        ((str(shop.folder / "key.pem"),), "no certificate"),
        ((str(shop.folder / "none.pem"),), "none.pem"),
        ((str(renewed), "--header", "max-age=1", "--install", "tls", "--skip-other-sites"), "--inventory"),
    ):
        answer = dynpin("guard", *arguments)
        assert (answer.exit_code, said in answer.stderr) == (2, True), answer.output
