"""The commands where the nodes of a site share a state: the history, the guard, the nodes themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.rotation import History, Published
from dynpin.middleware.policy import read_inventory
from dynpin.middleware.policy.ramp import RampFile
from tests.deploy.commands import dynpin
from tests.deploy.servers import make_site
from tests.deploy.test_check import serving
from tests.middleware.conftest import HOST, Site, authority  # noqa: F401 - a fixture
from tests.middleware.test_shared import HOUR, Many, Node


@pytest.fixture
def many(tmp_path: Path, authority: trustme.CA) -> Iterator[Many]:  # noqa: F811
    with ExitStack() as stack:
        yield Many(tmp_path, authority, stack)


def run(node: Node, *arguments: str, code: int = 0, now: bool = True) -> str:
    """What a command says of the site, run on a node."""
    at = ["--now", datetime.fromtimestamp(node.site.clock.now, UTC).isoformat()] if now else []
    result = dynpin(*arguments, "--inventory", str(node.inventory), *at)
    assert result.exit_code == code, result.output
    return result.output


def nodes(node: Node, *arguments: str, code: int = 0) -> str:
    return run(node, "nodes", *arguments, code=code, now=False)


def lay_next(many: Many) -> trustme.LeafCert:
    """The next certificate, on every node, and deployed on none."""
    fresh = many.authority.issue_cert(*many.nodes[0].files.names)
    for node in many.nodes:
        (node.files.folder / "next.pem").write_bytes(b"".join(pem.bytes() for pem in fresh.cert_chain_pems))
    return fresh


def test_a_rotation_from_plan_to_retire_waits_for_every_node(many: Many) -> None:
    a, b, c = many.start()
    assert "the history in the state of bank.test" in run(b, "rotate", "record")
    assert not b.inventory.with_name("dynpin-history.json").exists()
    fresh = lay_next(many)
    new, next_chain = Pin.from_file(a.files.folder / "next.pem"), str(a.files.folder / "next.pem")
    many.clock.forward(HOUR)
    many.look()
    run(a, "rotate", "plan", "--to", next_chain, "--start")
    # Two of three nodes send the new key: the step is not done, and another machine says so.
    for node in (a, b):
        node.describe("next.pem", "backup.pub")
    many.look()
    refused = run(c, "rotate", "next", "--done", code=1)
    assert f"node c: the header does not name {new}, the new key" in refused
    c.describe("next.pem", "backup.pub")
    many.look()
    assert "spreading" in run(c, "rotate", "next", "--done")
    stopped = run(a, "guard", next_chain, code=1)
    assert "STOP: deploying this chain locks out everybody who holds the pins of bank.test until" in stopped
    many.clock.forward(HOUR + 120)
    many.look()
    assert "fine: every policy that clients of bank.test hold names a key of this chain" in run(a, "guard", next_chain)
    old = Pin.from_file(c.files.chain)
    for node in many.nodes:
        many.lay_like(node, node)
        (node.files.folder / "old.pem").write_bytes(node.files.chain.read_bytes())
        node.files.deploy(fresh)
        node.describe("old.pem", "backup.pub")
        many.look()
        assert [old in (each.pins or ()) for each in many.nodes] == [True] * 3
    assert "settling" in run(b, "rotate", "next", "--done")
    many.clock.forward(HOUR + 120)
    for node in many.nodes:
        node.describe()
    many.look()
    assert "steady" in run(b, "rotate", "next", "--done")
    assert [each.pins for each in many.nodes] == [{new, Pin.from_file(a.files.backup)}] * 3
    shared: list[dict[str, Any]] = json.loads(many.state.to_json())["history"]["events"]
    assert [event["event"] for event in shared].count("published") >= 3


def test_the_guard_knows_what_other_nodes_send(many: Many) -> None:
    a, b, _ = many.start()
    lay_next(many)
    many.clock.forward(2 * HOUR)
    for node in (a, many.nodes[2]):
        node.describe("next.pem", "backup.pub")
    many.look()
    many.clock.forward(2 * HOUR)
    many.look()
    next_chain = str(a.files.folder / "next.pem")
    stopped = run(a, "guard", next_chain, code=1)
    assert "its key" in stopped
    assert "and node b still sends such a header" in stopped
    b.describe("next.pem", "backup.pub")
    many.look()
    many.clock.forward(2 * HOUR)
    many.look()
    assert "fine" in run(a, "guard", next_chain)


def test_a_history_goes_on_from_the_file_of_the_time_before_the_nodes_shared_one(many: Many) -> None:
    """What clients hold from that time still counts: the guard would let their lock-out pass."""
    a = many.start()[0]
    fresh = lay_next(many).cert_chain_pems[0].bytes()
    gone = PublicKeyPins((Pin.from_certificate(fresh), Pin.from_file(a.files.backup)), max_age=30 * 24 * HOUR)
    earlier = History(HOST).with_event(Published(many.clock.now - HOUR, gone))
    file = a.inventory.with_name("dynpin-history.json")
    file.write_text(earlier.to_json())
    for said in (f"It continues {file}", "nothing new"):
        # The present key is not in the earlier header: its holders are locked out, and record says so.
        assert said in run(a, "rotate", "record", "--history", str(file), code=1)
    assert str(gone.pins[0]) in run(a, "rotate", "status", code=1)


def test_the_guard_reads_the_earlier_file_before_somebody_records_it(many: Many) -> None:
    a = many.start()[0]
    lay_next(many)
    for node in many.nodes:
        node.describe("next.pem", "backup.pub")
    many.look()
    many.clock.forward(HOUR + 120)
    many.look()
    next_chain, file = str(a.files.folder / "next.pem"), a.inventory.with_name("dynpin-history.json")
    assert "fine" in run(a, "guard", next_chain, "--history", str(file))
    month = PublicKeyPins((Pin.from_file(a.files.chain), Pin.from_file(a.files.backup)), max_age=30 * 24 * HOUR)
    file.write_text(History(HOST).with_event(Published(many.clock.now - 8 * HOUR, month)).to_json())
    assert "locks out everybody" in run(a, "guard", next_chain, "--history", str(file), code=1)


def test_what_the_ramp_of_this_machine_sent_before_goes_on_too(many: Many) -> None:
    for node in many.nodes:
        node.describe(max_age="30 days", more="[ramp]\n")
    a = many.start()[0]
    site = read_inventory(a.inventory)
    assert site.ramp is not None
    begun, month = many.clock.now - 40 * 24 * HOUR, 30 * 24 * HOUR
    ramp = RampFile(site.ramp.state, site.ramp.token)
    ramp.change(site.ramp.begin(begun), lambda before, _: replace(before, max_age=300), begun)
    ramp.change(site.ramp.begin(begun), lambda before, _: replace(before, max_age=month), many.clock.now - HOUR)
    # As it was recorded on the first day.
    first = PublicKeyPins((Pin.from_file(a.files.chain), Pin.from_file(a.files.backup)), max_age=300)
    file = a.inventory.with_name("dynpin-history.json")
    file.write_text(History(HOST).with_event(Published(begun, first)).to_json())
    run(a, "rotate", "record", "--history", str(file))
    held = json.loads(run(a, "rotate", "status", "--json"))["held"]
    assert any(f"max-age={month}" in each["header"] for each in held), held


@pytest.mark.parametrize("anew", [(), ("--anew",)], ids=["", "anew"])
def test_a_repair_goes_on_from_the_earlier_file_too_and_assumes_that_it_is_not_all(
    anew: tuple[str, ...], many: Many
) -> None:
    a = many.start()[0]
    pins = (Pin.from_file(a.files.chain), Pin.from_file(a.files.backup))
    year = PublicKeyPins(pins, max_age=365 * 24 * HOUR)
    file = a.inventory.with_name("dynpin-history.json")
    file.write_text(History(HOST).with_event(Published(many.clock.now - HOUR, year)).to_json())
    said = run(a, "rotate", "repair", *anew, "--history", str(file))
    assert f"1 event of {HOST} saved" in said
    assert f"It continues {file}" in said
    until = datetime.fromtimestamp(many.clock.now + 365 * 24 * HOUR, UTC)
    assert f"Until {until:%Y-%m-%dT%H:%M}" in said


def test_a_guard_that_cannot_ask_stops(many: Many) -> None:
    a = many.start()[0]
    many.running.close()
    assert "cannot be read" in run(a, "guard", str(a.files.chain), code=2)
    assert "cannot be read" in run(a, "rotate", "status", code=2)
    assert "cannot be read" in nodes(a, "list", code=2)


def test_an_emergency_goes_by_what_was_seen_last(many: Many) -> None:
    a = many.start()[0]
    run(a, "rotate", "record")
    many.running.close()
    at = datetime.fromtimestamp(many.clock.now, UTC).isoformat()
    history = str(a.inventory.with_name("dynpin-history.json"))
    result = dynpin(
        "rotate", "emergency", "key-compromised", "--history", history, "--key", str(a.files.backup), "--now", at
    )
    assert result.exit_code == 0, result.output
    assert "using what this machine saw last" in result.output


def test_an_emergency_without_any_history_names_the_way_without_the_collector(many: Many) -> None:
    a = many.start()[0]
    many.running.close()
    result = dynpin("rotate", "emergency", "key-lost", "--history", str(a.inventory.with_name("dynpin-history.json")))
    assert result.exit_code == 2, result.output
    assert "has no copy of a history either" in result.output
    assert "dynpin rotate record" in result.output


@pytest.mark.parametrize("names", [(HOST,), ("--all", ".")], ids=["one", "all"])
def test_the_live_site_is_checked_while_the_collector_is_away(
    names: tuple[str, ...], many: Many, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = many.start()[0]
    run(a, "rotate", "record")
    many.running.close()
    monkeypatch.chdir(a.inventory.parent)
    live = make_site(tmp_path / "live", HOST)
    with serving(lambda path: (200, {}, ""), live) as port:
        address = ["--address", f"127.0.0.1:{port}", "--ca", str(live.roots)]
        result = dynpin("check", *names, *address, "--json")
    assert result.exit_code == 1, result.output
    assert "header-missing" in result.stdout
    assert "it is not known whether the nodes agree" in result.stdout


def test_nodes_that_do_not_agree_are_told_and_one_that_is_gone_is_forgotten(many: Many) -> None:
    a, b, c = many.start()
    assert "node a: Public-Key-Pins: pin-sha256=" in nodes(a, "list")
    b.describe(max_age="2 hours")
    many.look()
    assert "node b sends another header than node a" in nodes(a, "list", code=1)
    b.describe()
    many.clock.forward(HOUR)
    for _ in range(2):
        a.look()
        b.look()
    assert "node c was not heard for 1 hour" in nodes(a, "list", code=1)
    assert "node c is forgotten" in nodes(a, "forget", "c")
    told = json.loads(nodes(b, "list", "--json"))
    assert [node["node"] for node in told["nodes"]] == ["a", "b"]
    assert any(held["node"] == "c" for held in told["held"])
    assert "has no node c" in nodes(a, "forget", "c", code=2)
    c.look()
    assert set(many.state.nodes) == {"a", "b", "c"}


def test_a_shared_history_is_repaired_where_it_is(many: Many) -> None:
    a = many.start()[0]
    run(a, "rotate", "record")
    assert "1 chain" not in run(a, "rotate", "repair")
    repaired = json.loads(run(a, "rotate", "repair", "--anew", "--json"))
    assert repaired["history"].startswith("the history in the state of bank.test")
    assert repaired["held_until"] is not None


def test_the_ramp_is_moved_by_hand_for_all(many: Many) -> None:
    ramp = '[ramp]\nsteps = [{ send = "report-only", for = "1 hour" }, { send = "5 minutes", for = "1 hour" }]\n'
    for node in many.nodes:
        node.describe(max_age="30 days", more=ramp)
    a, b, _ = many.start()
    assert "report-only -> max-age of 5 minutes" in run(a, "ramp", "next", "--force")
    many.look()
    assert [each.policy.header and each.policy.header.max_age for each in many.nodes] == [300] * 3
    assert "max-age of 5 minutes -> report-only" in run(b, "ramp", "restart")


def test_a_header_for_a_proxy_is_announced_too(many: Many) -> None:
    a, _, _ = many.nodes
    file = a.files.folder / "pins.conf"
    export = ["export", "nginx", "--watch", str(file), "--once", "--inventory", str(a.inventory)]
    result = dynpin(*export)
    assert result.exit_code == 0, result.output
    assert str(Pin.from_file(a.files.chain)) in file.read_text()
    assert many.state.nodes["a"].policy is not None


def test_the_site_s_files_stay_as_they_are(site: Site) -> None:
    """Without a state each node has files of its own, as before."""
    assert dynpin("nodes", "list", "--inventory", str(_alone(site))).exit_code == 2


def _alone(site: Site) -> Path:
    file = site.folder / "dynpin.toml"
    file.write_text(
        'hosts = ["bank.test"]\nkeys = ["fullchain.pem"]\nbackups = ["backup.pub"]\n[policy]\nmax_age = 60\n'
    )
    return file


@pytest.fixture
def site(tmp_path: Path, authority: trustme.CA) -> Site:  # noqa: F811
    return Site(tmp_path / "tls", authority)
