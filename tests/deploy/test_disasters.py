"""The published disasters: each is refused, or warned of, by the command that would have prevented it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from dynpin import Pin, PolicyError, PublicKeyPins
from dynpin.middleware import Policy
from tests.deploy.commands import dynpin
from tests.deploy.servers import make_site
from tests.deploy.test_check import NEW, NEXT, OLD

VECTORS = Path(__file__).parents[1] / "vectors"
FAULTS: Any = json.loads((VECTORS / "faults.json").read_text())
SMASHING: Any = next(
    each["numbers"]
    for each in json.loads((VECTORS / "studies.json").read_text())["studies"]
    if each["study"] == "Smashing Magazine outage"
)


def lint(*arguments: str) -> list[str]:
    return [each["fault"] for each in json.loads(dynpin("lint", "--json", *arguments).stdout)]


def test_smashing_magazine_the_new_key_and_its_pin_go_live_together(tmp_path: Path) -> None:
    """October 2016: max-age of a year, includeSubDomains; the new pin was published in the moment of the deployment."""
    old, new = make_site(tmp_path / "old").chain, make_site(tmp_path / "new").chain
    before = PublicKeyPins((Pin.from_file(old), OLD, NEXT), SMASHING["max_age"], SMASHING["includeSubDomains"])
    after = PublicKeyPins((Pin.from_file(new), OLD, NEXT), SMASHING["max_age"], SMASHING["includeSubDomains"])
    assert len(before.pins) == SMASHING["pins"]
    history = ["--history", str(tmp_path / "history.json")]
    started = ("--host", "www.example.com", "--header", str(before), "--chain", str(old), "--now", "2016-10-01")
    assert dynpin("rotate", "record", *started, *history).exit_code == 0
    assert dynpin("rotate", "record", "--header", str(after), "--now", "2016-10-21", *history).exit_code == 0
    stopped = dynpin("guard", str(new), "--now", "2016-10-21", *history)
    assert stopped.exit_code == 1
    assert "2017-10-21" in stopped.stdout

    # Deployed all the same, it shows from outside: the header before, and the chain now.
    context = tmp_path / "context.json"
    context.write_text(json.dumps({"previous_header": str(before), "chain_pins": [str(Pin.from_file(new))]}))
    assert "rotation-too-early" in lint("--context", str(context), str(after))
    assert "max-age-too-long" in lint(str(before))


def test_a_renewal_makes_a_new_key(tmp_path: Path) -> None:
    deployed, renewed = make_site(tmp_path / "a").chain, make_site(tmp_path / "b").chain
    sent = str(PublicKeyPins((Pin.from_file(deployed), NEW), 5184000))
    assert dynpin("guard", str(deployed), "--header", sent).exit_code == 0
    result = dynpin("guard", str(renewed), "--header", sent)
    assert (result.exit_code, "--reuse-key" in result.stdout) == (1, True)


def test_one_pin_and_no_backup(tmp_path: Path) -> None:
    """The commonest fault (Netcraft 2016): nothing is left to deploy when the one key is lost."""
    site = make_site(tmp_path, "www.example.com")
    assert dynpin("lint", f'pin-sha256="{NEW}"; max-age=5184000').exit_code == 1
    assert dynpin("export", "nginx", str(NEW)).exit_code == 2
    for backups in ([], [site.chain]):
        with pytest.raises(PolicyError, match="Backup Pin"):
            Policy(site.chain, backups, max_age=5_184_000)


@pytest.mark.parametrize("bogus", FAULTS["known_bogus_pins"], ids=lambda each: each["from"])
def test_example_pins_that_were_copied(bogus: Any) -> None:
    """The pins of the RFC, of MDN and of tutorials, which sites sent as their own."""
    found = lint(f'pin-sha256="{bogus["pin"]}"; pin-sha256="{NEW}"; max-age=5184000')
    assert any(fault.startswith("pin-") for fault in found), found
    assert dynpin("lint", f'pin-sha256="{bogus["pin"]}"; pin-sha256="{NEW}"; max-age=5184000').exit_code == 1


@pytest.mark.parametrize("uri", ["https://www.example.com/hpkp", "https://reports.www.example.com/hpkp"])
def test_reports_that_go_to_the_pinned_host(uri: str, tmp_path: Path) -> None:
    """secure_headers #166, detectify.com, slevomat.cz: no report ever came, for the host that fails is told."""
    site = make_site(tmp_path, "www.example.com")
    with pytest.raises(PolicyError, match="is on the pinned host"):
        Policy(site.chain, NEW, max_age=5_184_000, include_subdomains=True, report_uri=uri)
    context = tmp_path / "context.json"
    context.write_text('{"host": "www.example.com"}')
    sent = f'pin-sha256="{OLD}"; pin-sha256="{NEW}"; max-age=5184000; includeSubDomains; report-uri="{uri}"'
    assert {"report-uri-same-host", "report-uri-covered-by-includeSubDomains"} & {
        *lint("--context", str(context), sent)
    }


def test_the_intermediate_that_a_site_pinned_is_retired(tmp_path: Path) -> None:
    """Let's Encrypt, December 2020: R3 took the place of X3, whose pin many sites sent (caddyserver/examples #41)."""
    published = {each["name"]: each["pin"] for each in FAULTS["known_ca_pins"]}
    x3 = published["Let's Encrypt Authority X3"]
    assert "ca-pin-intermediate-retired" in lint(f'pin-sha256="{x3}"; pin-sha256="{NEW}"; max-age=5184000')
    # Before that day the guard stops the renewal that comes from another intermediate, with the same key of the site.
    root = trustme.CA()
    pinned, successor = root.create_child_ca(), root.create_child_ca()
    for name, authority in (("old", pinned), ("new", successor)):
        for pem in authority.issue_cert("www.example.com").cert_chain_pems:
            pem.write_to_path(tmp_path / f"{name}.pem", append=True)
    sent = str(PublicKeyPins((Pin.from_certificate(pinned.cert_pem.bytes()), NEW), 5_184_000))
    passed = dynpin("guard", str(tmp_path / "old.pem"), "--header", sent)
    assert (passed.exit_code, "which the CA may change" in passed.stdout) == (0, True)
    assert dynpin("guard", str(tmp_path / "new.pem"), "--header", sent).exit_code == 1


def test_a_renewal_that_reaches_the_server_all_the_same_is_not_pinned(tmp_path: Path) -> None:
    """certbot #3788, lego #52, acme.sh #962: a renewal made a new key; to pin that too bars the way back."""
    deployed, renewed = make_site(tmp_path / "a").chain, make_site(tmp_path / "b").chain
    policy = Policy(deployed, NEW, max_age=5_184_000)
    deployed.write_bytes(renewed.read_bytes())
    assert policy.refresh()
    assert policy.header is None
