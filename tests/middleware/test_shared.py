"""Nodes of one site that share a state: no header is sent whose clients another node would lock out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from dynpin import Pin, PolicyError, PublicKeyPins
from dynpin.middleware import Policy
from dynpin.middleware.collector import new_api_token
from dynpin.middleware.policy import read_inventory
from dynpin.middleware.policy.ramp.driver import Driver
from dynpin.middleware.policy.shared import Announcer, Sender, SharedState, SiteDocument
from tests.clock import Clock
from tests.middleware.collector.conftest import Site as Collector
from tests.middleware.collector.conftest import running_site
from tests.middleware.conftest import HOST, Site

MINUTE, HOUR, DAY = 60, 3600, 86_400
RAMP = '[ramp]\nsteps = [{ send = "report-only", for = "1 hour" }, { send = "5 minutes", for = "1 hour" }]\n'


class Node:
    """One node: a folder with key files, a policy, and what agrees with the other nodes, whose looks a test takes."""

    def __init__(self, site: Many, name: str) -> None:
        self.site, self.name = site, name
        self.files = Site(site.folder / name, site.authority)
        self.inventory = self.files.folder / "dynpin.toml"
        self.clock = Clock(site.clock.now)
        self.seconds = Clock(0)
        self.announcer = Announcer(interval=3600, clock=self.seconds)
        self.driver = Driver(interval=3600, clock=self.clock)

    def describe(self, *backups: str, max_age: str = "1 hour", keys: str = "fullchain.pem", more: str = "") -> None:
        names = ", ".join(f'"{name}"' for name in backups or ("backup.pub",))
        self.inventory.write_text(
            f'hosts = ["{HOST}"]\nkeys = ["{keys}"]\nbackups = [{names}]\n[policy]\nmax_age = "{max_age}"\n'
            f'report_uri = "{self.site.collector.url}/r/demo/enforce"\n[site]\nstate = "{self.site.collector.url}"\n'
            f'token_file = "{self.site.token}"\nnode = "{self.name}"\n{more}'
        )

    def start(self) -> Node:
        self.policy = Policy.from_inventory(self.inventory)
        self.announcer = Announcer(interval=3600, clock=self.seconds)
        self.announcer.add(self.policy)
        self.driver = Driver(interval=3600, clock=self.clock)
        self.driver.add(self.policy)
        self.site.stack.callback(self.announcer.before_fork)
        self.site.stack.callback(self.driver.before_fork)
        return self

    def look(self) -> None:
        """What the threads do within ten seconds."""
        self.seconds.forward(10)
        self.policy.refresh()
        self.announcer.look()
        self.driver.look()
        self.policy.refresh()

    @property
    def pins(self) -> set[Pin] | None:
        return None if self.policy.header is None else set(self.policy.header.pins)


class Many:
    """A site of several nodes with one key, and a real collector."""

    def __init__(self, folder: Path, authority: trustme.CA, stack: ExitStack) -> None:
        self.folder, self.authority, self.stack = folder, authority, stack
        self.clock = Clock()
        self.token = folder / "collector.token"
        self.collector = self.collect()
        self.nodes = [Node(self, name) for name in "abc"]
        for node in self.nodes[1:]:
            self.lay_like(self.nodes[0], node)
        for node in self.nodes:
            node.describe()

    def collect(self, file: str = "reports.sqlite") -> Collector:
        self.running = ExitStack()
        self.stack.callback(self.running.close)
        options: dict[str, Any] = {"open_access": False, "password": "long enough to be one"}
        self.collector = self.running.enter_context(running_site(clock=self.clock, file=self.folder / file, **options))
        text, token = new_api_token(f"nodes of {file}", [f"site:{HOST}"], self.clock.now, 1000)
        if self.collector.storage.add_api_token(token):
            self.token.write_text(text + "\n")
        return self.collector

    def lay_like(self, one: Node, other: Node) -> None:
        for file in ("fullchain.pem", "key.pem", "backup.pub"):
            (other.files.folder / file).write_bytes((one.files.folder / file).read_bytes())

    def start(self) -> list[Node]:
        for node in self.nodes:
            node.start()
        self.look()
        return self.nodes

    def look(self, times: int = 2) -> None:
        for _ in range(times):
            for node in self.nodes:
                node.look()

    @property
    def state(self) -> SiteDocument:
        source = read_inventory(self.nodes[0].inventory).state
        assert source is not None
        return SharedState(source).fetch()


@pytest.fixture
def many(tmp_path: Path, authority: trustme.CA) -> Iterator[Many]:
    with ExitStack() as stack:
        yield Many(tmp_path, authority, stack)


def test_a_header_is_announced_before_it_is_sent(many: Many) -> None:
    a = many.nodes[0].start()
    assert a.pins is None  # nobody knows yet what the others send and show
    a.look()
    entry = many.state.nodes["a"]
    assert entry.header == f"Public-Key-Pins: {a.policy.header}"
    assert entry.chains == (tuple(str(pin) for pin in [Pin.from_file(a.files.chain)]),)


def test_a_node_starts_and_serves_by_its_copy_and_moves_nothing_up(
    many: Many, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, _ = many.start()
    sent = a.policy.header
    many.running.close()
    again = a.start()
    assert again.policy.header == sent is not None
    caplog.clear()
    again.look()
    assert (
        "uses its copy of the shared state, and its ramp does not move up: the state of bank.test at http://127.0.0.1:"
        in caplog.text
    )
    assert "Check that the collector runs" in caplog.text
    many.nodes[1].describe(max_age="2 hours")  # up: not without the others
    b.look()
    assert b.policy.header == sent
    many.nodes[1].describe(max_age="10 minutes")  # down: locks nobody out
    b.look()
    assert b.policy.header is not None
    assert b.policy.header.max_age == 600


def test_an_error_is_told_once_a_minute(many: Many, caplog: pytest.LogCaptureFixture) -> None:
    a = many.start()[0]
    many.running.close()
    caplog.clear()
    for _ in range(12):
        a.look()
    assert sum("uses its copy of the shared state" in record.message for record in caplog.records) == 2


def test_a_node_that_never_saw_the_others_sends_nothing_while_the_collector_is_away(many: Many) -> None:
    many.running.close()
    a = many.nodes[0].start()
    a.look()
    assert a.policy.header is None


def test_a_header_waits_until_no_node_shows_a_key_that_it_lacks(many: Many, caplog: pytest.LogCaptureFixture) -> None:
    nodes = many.start()
    old, [a, b, c] = Pin.from_file(nodes[0].files.chain), nodes
    fresh = many.authority.issue_cert(HOST)
    for node in nodes:
        (node.files.folder / "next.pem").write_bytes(b"".join(pem.bytes() for pem in fresh.cert_chain_pems))
        node.describe("next.pem", "backup.pub")
    many.look()
    new = Pin.from_file(a.files.folder / "next.pem")
    assert all(new in (node.pins or ()) for node in nodes)
    many.clock.forward(2 * HOUR)  # nobody holds the header without it any more
    # The new key is deployed, and the old one retired at once, node by node: the header waits for the last of them.
    for node, waits in ((a, True), (b, True), (c, False)):
        node.files.deploy(fresh)
        node.describe()
        node.look()
        node.look()
        assert (old in (node.pins or ())) == waits
    assert "node b, c has a key that the new header does not pin" in caplog.text
    many.look()
    assert [node.pins for node in nodes] == [{new, Pin.from_file(a.files.backup)}] * 3
    # What was sent before may be held for a while, and everybody can see until when.
    held = list(many.state.sent(many.clock.now))
    assert any(old in each.policy.pins and each.last_at is not None for each in held)


def test_a_key_that_some_node_has_not_pinned_leaves_no_header(many: Many, caplog: pytest.LogCaptureFixture) -> None:
    a, b, _ = many.start()
    a.files.deploy(many.authority.issue_cert(HOST))
    a.look()
    assert a.pins is None
    assert "Deploy a pinned key again, and the header comes back" in caplog.text
    assert many.state.nodes["a"].header is None
    assert b.pins is not None
    many.lay_like(b, a)
    a.look()
    assert a.policy.header == b.policy.header
    # However much time passes: the others still send a header without this key.
    a.files.deploy(many.authority.issue_cert(HOST))
    many.clock.forward(DAY)
    a.look()
    assert a.policy.header is None


def test_the_ramp_moves_for_all_nodes_by_one_clock(many: Many) -> None:
    for node in many.nodes:
        node.describe(max_age="30 days", more=RAMP)
    a, b, c = many.start()
    c.clock.forward(HOUR)  # an hour ahead: what it takes for quiet is not
    # The collector is asked every five minutes, and the real time that goes by between two looks counts too.
    for _ in range(11):
        many.clock.forward(310)
        many.look()
        assert [node.policy.header and node.policy.header.report_only for node in many.nodes] == [True] * 3
    many.clock.forward(310)
    many.look(3)
    assert [node.policy.header and node.policy.header.max_age for node in many.nodes] == [300] * 3
    many.running.close()
    for _ in range(30):
        many.clock.forward(310)
        many.look(1)
    assert [node.policy.header and node.policy.header.max_age for node in many.nodes] == [300] * 3
    assert [max_age for _, max_age in read_inventory(a.inventory).kept_ramp().sent()] == [None, 300]  # type: ignore[union-attr]
    assert b.start().policy.header == c.policy.header


def test_a_collector_with_an_older_database_is_given_what_was_lost(
    many: Many, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = many.start()
    before, url = many.state, many.collector.url
    many.running.close()
    many.collect("another.sqlite")
    for node in nodes:
        node.describe()
        copy = node.inventory.with_name("dynpin-site.json")
        copy.write_text(copy.read_text().replace(url, many.collector.url))
    many.look()
    assert "has lost changes that this node has seen; this node puts its copy back" in caplog.text
    assert many.state.nodes.keys() == before.nodes.keys()
    assert many.state.revision > before.revision


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('remember = "sent.txt"\n', "remove the line remember"),
        ('[ramp]\nstate = "ramp.sqlite"\n', "remove the line state of [ramp]"),
        ('[site]\nnode = "a b"\n', "[site] node"),
        ('[site]\nstate = "ftp://a"\n', "[site] state"),
    ],
)
def test_what_cannot_be_is_said(lines: str, said: str, many: Many) -> None:
    a = many.nodes[0]
    text = a.inventory.read_text()
    top, _, tables = text.partition("[policy]")
    if lines.startswith("[site]"):
        name, _, _ = lines.removeprefix("[site]\n").partition(" ")
        kept = [line for line in tables.splitlines() if not line.startswith(name)]
        a.inventory.write_text(f"{top}[policy]" + "\n".join(kept).replace("[site]", lines))
    elif lines.startswith("["):
        a.inventory.write_text(f"{text}{lines}")
    else:
        a.inventory.write_text(f"{top}{lines}[policy]{tables}")
    with pytest.raises(PolicyError, match=r"dynpin\.toml") as refused:
        read_inventory(a.inventory)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("no JSON", "cannot be read"),
        ('{"host": "other.test", "collector": "https://b"}', "is the copy of the state of other.test"),
    ],
)
def test_a_copy_that_is_none_is_said(damage: str, said: str, many: Many) -> None:
    a = many.nodes[0]
    a.inventory.with_name("dynpin-site.json").write_text(damage)
    with pytest.raises(PolicyError, match=r"dynpin-site\.json") as refused:
        a.start()
    assert said in str(refused.value)


@pytest.mark.parametrize("header", ["Public-Key-Pins", "Public-Key-Pins-Report-Only"])
def test_a_document_keeps_what_it_is_told(header: str) -> None:
    pins = tuple(Pin(bytes([number]) * 32) for number in (1, 2))
    report_only = header.endswith("Only")
    wanted = PublicKeyPins(
        pins=pins, max_age=None if report_only else 60, report_only=report_only, report_uri="https://r.test/"
    )
    sender = Sender(machine="web1", identity="0" * 16)
    told = SiteDocument().announce("a", wanted, [(str(pins[0]),)], 1.0, sender)
    assert SiteDocument.from_json(told.to_json()) == told
    gone = told.forget("a", 5.0)
    assert [each.last_at for each in gone.past] == ([] if report_only else [65.0])
    assert list(gone.sent(65.0 + 60)) == []
