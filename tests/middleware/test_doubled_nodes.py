"""Two nodes under one name: each would undo what the other one tells, so both hold until they have names of two."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PolicyError, PublicKeyPins
from dynpin.deploy.agreement import agreement
from dynpin.middleware.policy import read_inventory
from dynpin.middleware.policy.shared import Sender, SiteDocument
from dynpin.middleware.policy.shared.sender import sender_of
from tests.deploy.commands import dynpin
from tests.middleware.conftest import HOST
from tests.middleware.test_shared import Many, Node

MAX_AGES = {"up": "2 hours", "down": "10 minutes"}


@pytest.fixture
def many(tmp_path: Path, authority: trustme.CA) -> Iterator[Many]:
    with ExitStack() as stack:
        yield Many(tmp_path, authority, stack)


def second(many: Many, name: str) -> Node:
    """Another machine that has the name and the keys of node a."""
    node = Node(many, name)
    many.lay_like(many.nodes[0], node)
    node.name = "a"
    node.describe()
    return node.start()


def turns(*nodes: Node) -> None:
    """Each asks the collector twice."""
    for _ in range(2):
        for node in nodes:
            node.look()


def test_both_hold_until_each_has_a_name_of_its_own(many: Many, caplog: pytest.LogCaptureFixture) -> None:
    a, b, _ = many.start()
    sent = a.policy.header
    twin = second(many, "twin")
    turns(twin, a, b)
    two = many.state.nodes["a"].doubled
    assert two is not None
    assert len({each.identity for each in two}) == 2
    assert f"two nodes have the name a: {two[0]} and {two[1]}. Give each its own name" in caplog.text
    _, wrong = agreement(read_inventory(b.inventory))
    assert [line for line in wrong if f"have the name a: {two[0]} and {two[1]}" in line]
    said = dynpin("nodes", "list", "--inventory", str(b.inventory))
    assert (said.exit_code, "dynpin nodes forget a" in said.output) == (1, True)
    changes = [entry.subject for entry in many.collector.storage.audit()]
    assert changes.count(f"{HOST}: two nodes use the name a") == 1

    for node in (a, twin):  # neither moves up, nor does one of them forget what the other one sends
        node.describe(max_age=MAX_AGES["up"])
    turns(a, twin, b)
    assert [node.policy.header for node in (a, twin)] == [sent] * 2
    again = a.start()
    assert again.policy.header == sent
    twin.describe(max_age=MAX_AGES["down"])  # what locks nobody out is sent
    turns(twin, a)
    assert twin.policy.header is not None
    assert twin.policy.header.max_age == 600

    twin.name = "d"
    twin.describe(max_age=MAX_AGES["up"])
    turns(twin, a)
    assert dynpin("nodes", "forget", "a", "--inventory", str(b.inventory)).exit_code == 0
    turns(twin, a)
    headers = [node.policy.header for node in (a, twin)]
    assert [header and header.max_age for header in headers] == [7200, 7200]
    assert many.state.nodes["a"].doubled is None


def test_the_others_wait_for_the_keys_of_both() -> None:
    keys = [Pin(bytes([number]) * 32) for number in range(3)]
    one, other = (Sender(machine=f"web{number}", identity=f"{number:016x}") for number in range(2))
    document = SiteDocument()
    for at, (sender, key) in enumerate([(one, 0), (other, 1), (one, 0)]):
        header = PublicKeyPins(pins=(keys[key], keys[2]), max_age=60)
        document = document.announce("a", header, [(str(keys[key]),)], float(at), sender)
    assert document.nodes["a"].doubled == (other, one)
    for pinned, waits in (([0, 2], ("a",)), ([1, 2], ("a",)), ([0, 1, 2], ())):
        header = PublicKeyPins(pins=tuple(keys[number] for number in pinned), max_age=60)
        assert document.objections("b", header, [(str(keys[2]),)], 3.0).waits_for == waits
    again = document.announce("a", None, [(str(keys[1]),)], 4.0, other)
    assert again == document, "nothing moves, and nothing is written each time that one of them speaks"


def test_to_forget_them_is_not_enough(many: Many) -> None:
    a, b, _ = many.start()
    twin = second(many, "twin")
    turns(twin, a)
    assert dynpin("nodes", "forget", "a", "--inventory", str(b.inventory)).exit_code == 0
    turns(twin, a)
    assert many.state.nodes["a"].doubled is not None


def test_a_node_that_was_installed_anew_is_one(many: Many) -> None:
    a, b, c = many.start()
    for _ in range(3):
        for name in ("dynpin-site.json", "dynpin-site.id"):
            a.inventory.with_name(name).unlink()
        a.start()
        turns(a, b, c)
    entry = many.state.nodes["a"]
    assert (entry.doubled, len(entry.former)) == (None, 3)
    assert a.policy.header is not None


def test_the_processes_of_one_node_are_one(many: Many) -> None:
    a, b, _ = many.start()
    worker = Node(many, "a").start()
    turns(worker, a, b)
    assert many.state.nodes["a"].doubled is None
    assert many.state.nodes["a"].former == ()


def test_a_number_is_made_once_and_is_another_on_another_machine(tmp_path: Path) -> None:
    copy = tmp_path / "dynpin-site.json"
    with ThreadPoolExecutor(8) as pool:
        assert len({sender_of(copy).identity for _ in range(20)} | set(pool.map(_identity, [copy] * 100))) == 1
    fresh = [tmp_path / f"fresh-{number}.json" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(_identity, fresh * 8))
    assert len(set(found)) == len(fresh)
    boots = [tmp_path / "one", tmp_path / "two"]
    for boot in boots:
        boot.write_text(boot.name)
    (tmp_path / "copied").mkdir()
    shutil.copy(tmp_path / "dynpin-site.id", tmp_path / "copied")
    copied = sender_of(tmp_path / "copied" / copy.name, boots[1])
    assert copied.identity != sender_of(copy, boots[0]).identity


def test_a_copy_of_the_folder_on_the_same_machine_is_another_node(tmp_path: Path) -> None:
    """Such as two containers of one image, which share the start of their machine."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = (tmp_path / name / "dynpin-site.json" for name in ("one", "other"))
    sender_of(one)
    shutil.copy2(one.with_suffix(".id"), other.with_suffix(".id"))
    assert sender_of(one).identity != sender_of(other).identity
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert sender_of(tmp_path / "link" / one.name).identity == sender_of(one).identity


def _identity(copy: Path) -> str:
    return sender_of(copy).identity


def test_a_damaged_number_is_said(tmp_path: Path) -> None:
    (tmp_path / "dynpin-site.id").write_text("no number")
    with pytest.raises(PolicyError, match=r"dynpin-site\.id.* 32 hexadecimal digits"):
        sender_of(tmp_path / "dynpin-site.json")
    with pytest.raises(PolicyError, match="must be able to write to its folder"):
        sender_of(tmp_path / "nowhere" / "dynpin-site.json")
