"""The name that TLS verifies and the name that a request is meant for: if they differ, the pins of both apply."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from dynpin import PinValidationError, UnenforceableContext
from dynpin.clientstore import PinStore, pin_violation
from dynpin.clientstore.enforcement.certified import certified_names
from dynpin.hosts import is_ip_literal
from dynpin.lab.network import names_led

from ..clock import Clock
from .names import ASKED, OTHER, Row
from .sites import Site
from .world import World, leaf_pin

# All names that TLS may verify in a row; the attacker's own authority has certified all of them.
NAMES = (
    *(ASKED, OTHER, "127.0.0.1", "proxy.test"),
    # faß.test, as IDNA 2003 and 2008 write it; bücher.test
    *("fass.test", "xn--fa-hia.test", "xn--bcher-kva.test"),
)
ROWS: list[Row] = [
    row
    for file in sorted(Path(__file__).parent.glob("names_*.py"))
    for row in importlib.import_module(f"tests.clientstore.{file.stem}").ROWS
]
every_row = pytest.mark.parametrize("row", ROWS, ids=str)


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, clock: Clock, tmp_path: Path) -> Iterator[World]:
    """Site and attacker have certificates for all names; nothing is pinned, and both send their own pins."""
    certificate, backup, stolen = honest.issue_cert(*NAMES), honest.issue_cert(ASKED), rogue.issue_cert(*NAMES)
    with (
        names_led(lambda name, port: ("127.0.0.1", port)),  # capitals and all
        Site(certificate) as site,
        Site(stolen) as attacker,
        PinStore(tmp_path / "pins", clock=clock) as store,
    ):
        made = World(honest, rogue, certificate, backup, stolen, site, attacker, store, tmp_path)
        site.headers = [("Public-Key-Pins", str(made.header))]
        attacker.headers = [
            ("Public-Key-Pins", f'pin-sha256="{leaf_pin(stolen)}"; pin-sha256="{leaf_pin(backup)}"; max-age=60')
        ]
        yield made


@every_row
@pytest.mark.parametrize("pinned", ["asked", "verified"])
def test_the_attacker_receives_nothing_if_either_name_is_pinned(world: World, row: Row, pinned: str) -> None:
    name = row.asked if pinned == "asked" else row.verified
    if is_ip_literal(name):
        pytest.skip("an IP address is never pinned")
    world.pin_site(name)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library's own; what it holds is looked at
        row.send(world, world.attacker.port)
    told = pin_violation(caught.value) or caught.value
    assert isinstance(told, PinValidationError if row.taken else UnenforceableContext | PinValidationError)
    caught.value.__traceback__ = None
    gc.collect()
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
    assert [known.host for known in world.store.hosts()] == [name]


@every_row
def test_nothing_is_noted_for_another_name_if_neither_is_pinned(world: World, row: Row) -> None:
    if not row.taken:
        with pytest.raises(UnenforceableContext):
            row.send(world, world.attacker.port)
        world.attacker.wait_idle()
        assert world.attacker.application_bytes == 0
        return
    row.send(world, world.attacker.port)
    world.attacker.wait_idle()
    assert b"Bearer secret" in world.attacker.received
    assert [known.host for known in world.store.hosts(include_expired=True)] == (
        [row.asked] if row.asked == row.verified else []
    )


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.taken and (row.asked == row.verified or is_ip_literal(row.asked))], ids=str
)
def test_another_spelling_and_another_way_to_the_verified_name_are_let_through(world: World, row: Row) -> None:
    world.pin_site(row.verified)
    row.send(world, world.site.port)
    world.site.wait_idle()
    assert b"Bearer secret" in world.site.received


@pytest.mark.parametrize(
    ("certificate", "names"),
    [
        (
            {"subjectAltName": (("DNS", "A.test."), ("IP Address", "192.0.2.1"), ("DNS", "b.test"))},
            ("a.test", "b.test"),
        ),
        ({"subjectAltName": (("DNS", "a.test"),), "subject": ((("commonName", "b.test"),),)}, ("a.test",)),
        ({"subject": ((("organizationName", "o.test"),), (("commonName", "B.test"),))}, ("b.test",)),
        ({"subjectAltName": (("IP Address", "192.0.2.1"),), "subject": ((("commonName", "b.test"),),)}, ("b.test",)),
        ({}, ()),
    ],
    ids=["DNS names", "DNS names hide the common name", "common name", "common name beside an address", "none"],
)
def test_the_names_in_a_certificate(certificate: dict[str, object], names: tuple[str, ...]) -> None:
    assert certified_names(certificate) == names
