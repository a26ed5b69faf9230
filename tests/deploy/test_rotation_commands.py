"""`dynpin rotate` as a person runs it, with a site's folder and real nodes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.rotation import History
from dynpin.lab.network import TLSServer, loopback_names
from tests.deploy.commands import dynpin
from tests.deploy.test_rotation import DAY, NEW, NEXT, header

HOST = "bank.test"


@dataclass
class Ground:
    """A folder with the site's present certificate and the next one, of one CA."""

    authority: trustme.CA
    old: trustme.LeafCert
    new: trustme.LeafCert

    @property
    def pins(self) -> tuple[Pin, Pin]:
        return Pin.from_file(Path("old.pem")), Pin.from_file(Path("new.pem"))

    def describe(self, keys: str, *backups: str, nodes: str = "", max_age: str = "30 days") -> None:
        listed = ", ".join([*(f'"{each}"' for each in backups), f'{{ pin = "{NEW}" }}'])
        Path("dynpin.toml").write_text(
            f'hosts = ["{HOST}"]\nkeys = ["{keys}"]\nbackups = [{listed}]\nroots = ["ca.pem"]\n\n'
            f'[policy]\nmax_age = "{max_age}"\n\n[site]\nnodes = [{nodes}]\n'
        )

    def server(self, stack: ExitStack, certificate: trustme.LeafCert, *pins: Pin) -> TLSServer:
        field = ("Public-Key-Pins", str(header(*pins)))
        return stack.enter_context(TLSServer(certificate, headers=[field]))


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.chdir(tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    old, new = authority.issue_cert(HOST), authority.issue_cert(HOST)
    for name, certificate in (("old", old), ("new", new)):
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(f"{name}.pem", append=True)
    made = Ground(authority, old, new)
    made.describe("old.pem")
    return made


def rotate(*arguments: str, code: int = 0, at: str = "2026-12-01") -> str:
    result = dynpin("rotate", *arguments, "--now", at)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


def answer(*arguments: str, code: int = 0, at: str = "2026-12-01") -> dict[str, object]:
    result = dynpin("rotate", *arguments, "--json", "--now", at)
    assert result.exit_code == code, result.output
    return cast("dict[str, object]", json.loads(result.stdout))


def stored() -> History:
    return History.from_json(Path("dynpin-history.json").read_bytes())


def test_a_plan_without_a_recorded_chain_says_that_it_lacks(ground: Ground) -> None:
    Path("dynpin.toml").unlink()
    rotate("record", "--host", HOST, "--header", str(header(ground.pins[0], NEW)))
    assert "or no chain: dynpin rotate record" in rotate("plan", "--to", "new.pem", "--start", code=2)


# --- the walk -----------------------------------------------------------------------------------------------------


def test_the_commands_walk_a_rotation(ground: Ground) -> None:
    _, new = ground.pins
    assert "does not exist" in rotate("status", code=1)
    assert "events of bank.test" in rotate("record")
    assert "steady" in rotate("status")
    shown = rotate("plan", "--to", "new.pem", "--picture", "plan.svg")
    assert "not before 2026-12-31T00:00:00Z" in shown
    assert ET.parse("plan.svg").getroot() is not None
    assert "steady" in rotate("status")  # a plan alone begins nothing
    rotate("plan", "--to", "new.pem", "--start")
    assert "publish" in rotate("next")

    ground.describe("old.pem", "new.pem")
    rotate("next", "--done")
    assert "2026-12-31T00:00:00Z" in rotate("next", "--done", at="2026-12-30T23:59:59Z", code=1)
    early = answer("next", at="2026-12-30", code=1)
    assert (early["stage"], early["early"]) == ("spreading", True)
    step = cast("dict[str, object]", early["next"])
    assert (step["step"], step["key"]) == ("deploy", str(new))

    ground.describe("new.pem", "old.pem")
    rotate("next", "--done", at="2026-12-31")
    assert stored().chain == tuple(Pin.from_certificate(pem.bytes()) for pem in ground.new.cert_chain_pems)
    assert "settling" in rotate("status", at="2027-01-01")
    ground.describe("new.pem")
    rotate("next", "--done", at="2027-01-30")
    assert answer("status", at="2027-01-30")["stage"] == "steady"
    assert f"Deploy the key {NEW} now" in rotate("emergency", "key-lost", "--key", str(NEW), at="2027-01-31")


def test_a_step_without_anything_to_see(ground: Ground) -> None:
    rotate("record")
    rotate("plan", "--to", "new.pem", "--start")
    Path("dynpin.toml").unlink()
    assert "nothing to look at: name --inventory" in rotate("next", "--done", code=2)
    assert "need --done" in rotate("next", "--verify", code=2)
    assert "is not an https URL" in rotate("next", "http://www.example.com/", "--done", "--verify", code=2)


def test_a_forgotten_edit(ground: Ground) -> None:
    """S1: what nobody sends is not published because somebody says so."""
    rotate("record")
    rotate("plan", "--to", "new.pem", "--start")
    before = Path("dynpin-history.json").read_text()
    said = rotate("next", "--done", code=1)
    assert f"does not name {ground.pins[1]}, the new key" in said
    assert "the step publish is not done, and nothing is recorded" in said
    told = answer("next", "--done", code=1)
    [missing] = cast("list[dict[str, str]]", told["missing"])
    assert (told["done"], missing["place"]) == (False, "dynpin.toml")
    assert "Name the file" in missing["advice"]
    assert Path("dynpin-history.json").read_text() == before
    # The same at the other end of the month.
    assert dynpin("guard", "new.pem", "--now", "2027-01-05").exit_code == 1


def test_the_key_in_use_does_not_end_its_own_loss(ground: Ground) -> None:
    rotate("record")
    for kind in ("key-lost", "key-compromised"):
        said = rotate("emergency", kind, "--key", "old.pem", "--key", str(NEW), code=2)
        assert "old.pem is the key in use" in said
        assert "deploy it again" in said
    assert "Deploy the key" in rotate("emergency", "ca-distrusted", "--key", "old.pem")


def test_an_inventory_that_makes_no_header_ends_no_emergency(ground: Ground) -> None:
    rotate("record")
    Path("dynpin.toml").write_text(Path("dynpin.toml").read_text().replace("old.pem", "gone.pem"))
    said = rotate("status", code=1)
    assert "steady" in said
    assert "gone.pem cannot be read" in said
    Path("dynpin.toml").write_text("hosts = [")
    assert "dynpin.toml" in rotate("status", code=2)
    said = rotate("emergency", "key-lost", "--key", str(NEW))
    assert f"Deploy the key {NEW} now" in said
    assert "a ramp" in said


def test_the_inventory_of_another_site(ground: Ground) -> None:
    rotate("record")
    ground.authority.issue_cert("api.example.com").cert_chain_pems[0].write_to_path("api.pem")
    ground.describe("api.pem")
    Path("dynpin.toml").write_text(Path("dynpin.toml").read_text().replace(HOST, "api.example.com"))
    assert "the inventory of another site: hosts names api.example.com" in rotate("status", code=1)
    assert "is for api.example.com" in rotate("record", code=2)


# --- record -------------------------------------------------------------------------------------------------------


def test_what_is_recorded_already_is_not_recorded_again(ground: Ground) -> None:
    first = answer("record")
    assert (first["events"], first["recorded"], first["stage"]) == (2, 2, "steady")
    before = Path("dynpin-history.json").read_text()
    assert "nothing new" in rotate("record", at="2026-12-02")
    assert answer("record", at="2026-12-02")["recorded"] == 0
    rotate("plan", "--to", "new.pem", "--start", at="2026-12-02")
    planned = Path("dynpin-history.json").read_text()
    rotate("plan", "--to", "new.pem", "--start", at="2026-12-03")
    assert before != planned == Path("dynpin-history.json").read_text()


def test_a_record_that_says_something_else_than_the_inventory(ground: Ground) -> None:
    old, _ = ground.pins
    said = rotate("record", "--host", HOST, "--header", str(header(old, NEXT)), "--chain", "old.pem", code=1)
    assert "recorded in dynpin-history.json" in said
    assert f"it lacks {NEXT}" in said
    assert "disagree" not in rotate("record", at="2026-12-02")


def test_a_record_of_a_lock_out(ground: Ground) -> None:
    rotate("record")
    ground.describe("new.pem")
    said = rotate("record", at="2026-12-02", code=1)
    assert "clients are locked out now, the last of them until 2027-01-01" in said
    locked = cast("list[object]", answer("status", at="2026-12-02", code=1)["locked_out"])
    assert len(locked) == 1


def test_a_history_is_of_one_host(ground: Ground) -> None:
    rotate("record")
    assert "not of b.example" in rotate("record", "--no-header", "--host", "b.example", code=2)
    assert "give --inventory, or" in rotate("record", "--no-header", "--inventory", "dynpin.toml", code=2)


def test_the_key_of_the_ca_is_no_backup(ground: Ground) -> None:
    """Clients see the validated chain, and in it the key that issued the certificate (RFC 7469 §2.5)."""
    old, new = ground.pins
    root = Pin.from_file(Path("ca.pem"))
    told = ["record", "--host", HOST, "--chain", "old.pem", "--header"]
    assert "names no Backup Pin" in rotate(*told, str(header(old, root)), code=2)
    assert not Path("dynpin-history.json").exists()
    rotate("record")
    for to in ("new.pem", str(new)):
        said = rotate("plan", "--to", to, "--backup", "ca.pem", "--start", code=2)
        assert "ca.pem is not a Backup Pin: " in said
        assert "dynpin keys new" in said
    # The key that is deployed now is outside the next chain.
    rotate("plan", "--to", "new.pem", "--backup", "old.pem", "--start")


def test_a_pinned_root_is_not_taken_for_a_backup(ground: Ground) -> None:
    old, _ = ground.pins
    root = Pin.from_file(Path("ca.pem"))
    sent = str(PublicKeyPins((old, root, NEXT), int(30 * DAY)))
    rotate("record", "--host", HOST, "--header", sent, "--chain", "old.pem", code=1)
    steps = json.loads(dynpin("rotate", "plan", "--to", "new.pem", "--json", "--now", "2026-12-01").stdout)
    assert str(root) not in steps[-1]["header"]
    assert str(NEXT) in steps[-1]["header"]


def test_a_rotation_begins_from_a_history_that_is_true(ground: Ground) -> None:
    rotate("record")
    ground.describe("old.pem", "new.pem")
    said = rotate("plan", "--to", "new.pem", "--start", code=1)
    assert "nothing is begun" in said
    rotate("record")
    rotate("plan", "--to", "new.pem", "--start")


# --- repair -------------------------------------------------------------------------------------------------------


def test_a_damaged_history_has_a_way_out(ground: Ground) -> None:
    rotate("record")
    rotate("plan", "--to", "new.pem", "--start")
    history = Path("dynpin-history.json")
    damaged = history.read_text()[:-30]
    history.write_text(damaged)
    for command in (["status"], ["next"], ["record"], ["emergency", "key-lost"]):
        said = rotate(*command, code=2)
        assert "dynpin-history.json: this is not a rotation history: it is not JSON (line" in said
        assert "`dynpin rotate repair --history dynpin-history.json`" in said
    said = rotate("repair", at="2026-12-05")
    assert "2 events of bank.test saved" in said
    assert "not read: {" in said
    assert "Until 2027-02-03T00:00:00Z dynpin assumes that clients hold" in said
    assert Path("dynpin-history.json.damaged").read_text() == damaged
    shown = answer("status", at="2026-12-05")
    assert (shown["stage"], shown["locked_out"]) == ("steady", [])
    assert "an unknown header" in rotate("status", at="2026-12-05")
    # A new key waits until whatever was sent is forgotten.
    rotate("plan", "--to", "new.pem", "--start", at="2026-12-05")
    ground.describe("old.pem", "new.pem")
    rotate("next", "--done", at="2026-12-05")
    assert "2027-02-03" in rotate("next", code=1, at="2027-02-02")
    assert rotate("next", at="2027-02-03")


def test_a_repair_of_what_is_no_more(ground: Ground) -> None:
    told = answer("repair", "--host", HOST)
    assert (told["saved"], told["complete"], told["damaged"], told["held_until"]) == (
        0,
        False,
        None,
        "2027-01-30T00:00:00Z",
    )
    text = Path("dynpin-history.json").read_text()
    assert answer("repair", at="2026-12-09")["held_until"] == "2027-01-30T00:00:00Z"  # it is whole
    assert Path("dynpin-history.json").read_text() == text
    assert answer("repair", "--anew", at="2026-12-09")["held_until"] == "2027-02-07T00:00:00Z"


def test_a_repair_needs_to_know_what_is_served_now(ground: Ground) -> None:
    old, _ = ground.pins
    rotate("record")
    Path("dynpin.toml").unlink()
    Path("dynpin-history.json").write_text("{")
    assert "say what is served now: --inventory FILE" in rotate("repair", code=2)
    assert "say what is served now" in rotate("repair", "--header", str(header(old, NEW)), code=2)
    assert Path("dynpin-history.json").read_text() == "{"
    assert "name it with --host" in rotate("repair", "--header", str(header(old, NEW)), "--chain", "old.pem", code=2)
    rotate("repair", "--header", str(header(old, NEW)), "--chain", "old.pem", "--host", HOST)
    assert stored().header == header(old, NEW)


def test_a_policy_for_a_year_is_unknown_for_a_year(ground: Ground) -> None:
    ground.describe("old.pem", max_age="365 days")
    inventory = Path("dynpin.toml")
    inventory.write_text(inventory.read_text().replace("[site]", "allow_long_max_age = true\n[site]"))
    assert answer("repair")["held_until"] == "2027-12-01T00:00:00Z"


def test_a_repair_of_another_site_s_history(ground: Ground) -> None:
    rotate("record")
    history = Path("dynpin-history.json")
    history.write_text(history.read_text().replace(HOST, "api.example.com").replace("}", "", 1))
    assert "this is the history of api.example.com" in rotate("repair", code=2)


# --- real nodes ---------------------------------------------------------------------------------------------------


def test_a_rotation_to_the_key_of_the_root_is_refused(ground: Ground) -> None:
    rotate("record")
    assert "ca.pem is not a key to deploy: ca.pem is the key that issued certificate 0" in rotate(
        "plan", "--to", "ca.pem", "--start", code=2
    )


@pytest.fixture
def stack() -> Generator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def test_every_node_is_looked_at_and_one_that_lags_behind_is_named(ground: Ground, stack: ExitStack) -> None:
    """A balancer or the DNS shows one node; the other one is in dynpin.toml."""
    old, new = ground.pins
    first = ground.server(stack, ground.old, old, new, NEW)
    second = ground.server(stack, ground.old, old, NEW)
    stack.enter_context(loopback_names({HOST: first.port}))
    nodes = f'"127.0.0.1:{second.port}"'
    ground.describe("old.pem", nodes=nodes)
    rotate("record")
    rotate("plan", "--to", "new.pem", "--start")
    ground.describe("old.pem", "new.pem", nodes=nodes)
    done = ["next", "--done", "--verify", first.url(HOST)]
    said = rotate(*done, code=1)
    assert f"127.0.0.1:{second.port}: the header does not name {new}, the new key" in said
    assert f"127.0.0.1:{first.port}: " not in said
    second.headers = first.headers
    rotate(*done)
    assert stored().header == header(old, new, NEW)

    # The same for the key: what a file says is not what a node shows.
    ground.describe("new.pem", "old.pem", nodes=nodes)
    first.show(ground.new)
    said = rotate(*done, code=1, at="2026-12-31")
    assert f"127.0.0.1:{second.port}: the new key {new} is not deployed: the deployed key is {old}" in said
    second.show(ground.new)
    rotate(*done, at="2026-12-31")
    assert stored().chain[0] == new


def test_without_an_inventory_the_nodes_alone_are_seen(ground: Ground, stack: ExitStack) -> None:
    old, new = ground.pins
    server = ground.server(stack, ground.old, old, new, NEW)
    stack.enter_context(loopback_names({HOST: server.port}))
    rotate("record")
    rotate("plan", "--to", "new.pem", "--start")
    Path("dynpin.toml").unlink()
    done = ["next", "--done", "--verify", server.url(HOST)]
    assert "--ca FILE" in rotate(*done, code=1)
    assert "holds no roots that can be read" in rotate(*done, "--ca", "dynpin-history.json", code=2)
    rotate(*done, "--ca", "ca.pem")
    assert stored().header == header(old, new, NEW)


def test_a_site_that_cannot_be_looked_at(ground: Ground, stack: ExitStack) -> None:
    rotate("record")
    rotate("plan", "--to", "new.pem", "--start")
    ground.describe("old.pem", "new.pem")
    server = ground.server(stack, trustme.CA().issue_cert(HOST), NEW)
    stack.enter_context(loopback_names({HOST: server.port}))
    assert "the certificate does not verify" in rotate("next", "--done", "--verify", server.url(HOST), code=1)
    assert "b.example is not the host of this history" in rotate("next", "--done", "--verify", "b.example", code=2)
    server.close()
    assert "Connection refused" in rotate("next", "--done", "--verify", server.url(HOST), code=1)
    assert len(stored().events) == 3
