"""The published disasters: each is refused, or warned of, by the command that would have prevented it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dynpin import Pin, PublicKeyPins
from tests.deploy.commands import dynpin
from tests.deploy.servers import make_site
from tests.deploy.test_rotation import NEW, NEXT, OLD

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


def test_one_pin_and_no_backup() -> None:
    assert dynpin("lint", f'pin-sha256="{NEW}"; max-age=5184000').exit_code == 1
    assert dynpin("export", "nginx", str(NEW)).exit_code == 2


@pytest.mark.parametrize(
    "example", ["pin-example-from-rfc-or-tutorial", "ca-pin-intermediate-retired", "report-uri-same-host"]
)
def test_a_header_that_was_published_before_it_harmed(example: str, tmp_path: Path) -> None:
    """Copied example pins; a pinned intermediate that its CA retired; reports that go to the pinned host."""
    found = next(each for each in FAULTS["examples"] if each["fault"] == example)
    context = tmp_path / "context.json"
    context.write_text(json.dumps(found["context"]))
    assert example in lint("--context", str(context), found["header"]["value"])
