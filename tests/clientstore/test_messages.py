"""What a person reads when a key is refused: the text alone is enough to find, understand and remove a wrong pin."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from dynpin import PinValidationError
from dynpin.clientstore import PinStore, enforce

from ..clock import Clock
from .libraries import LIBRARIES, Library
from .world import HOST, World, leaf_pin


def _message(world: World, store: PinStore, *, loosely: bool = False) -> str:
    context = enforce(world.plain_context(), store, reporter="off")
    if loosely:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with world.connect(world.attacker) as raw, pytest.raises(PinValidationError) as caught:
        context.wrap_socket(raw, server_hostname=HOST)
    return str(caught.value)


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_every_library_shows_it_line_by_line(world: World, library: Library) -> None:
    world.pin_site()
    with pytest.raises(library.error) as caught:
        library.visit(world.store, world.plain_context(), [f"https://{HOST}:{world.attacker.port}/"])
    text = str(caught.value)
    assert "\\n" not in text
    lines = text.splitlines()
    assert f"{HOST} shows none of its pinned keys." in lines[0]
    assert lines[1].startswith(f"  shown   {leaf_pin(world.stolen_name)}  (leaf")
    assert f"  pinned  {world.header.pins[0]}" in lines
    assert f"          in {world.store.path}" in lines
    command = f"dynpin hosts forget {HOST} --store {world.store.path}"
    assert [line.rstrip(">") for line in lines if line.rstrip(">").endswith(f"right:  {command}")]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Evil CA", "(leaf, Evil CA)"),
        ("a\x1b[2Jb\nc", "(leaf, a?[2Jb?c)"),
        ("x" * 64, f"(leaf, {'x' * 64})"),
        (None, "(leaf, "),
    ],
    ids=["plain", "control characters", "long", "none"],
)
def test_whose_key_was_shown_stands_beside_its_pin(world: World, name: str | None, shown: str) -> None:
    world.pin_site()
    stolen = world.rogue.issue_cert(HOST, common_name=name)
    world.attacker.show(stolen)
    first, issuer = _message(world, world.store).splitlines()[1:3]
    assert first.startswith(f"  shown   {leaf_pin(stolen)}  {shown}")
    assert "  (issuer, " in issuer


def test_static_pins_say_who_has_set_them(world: World, clock: Clock) -> None:
    world.pin_site()
    clock.forward(3 * 86_400.0)
    assert "  static pins, set 3 days ago for this host, until they are forgotten\n" in _message(world, world.store)
    world.store.forget(HOST)
    entries = [world.store.pin(HOST, world.header.pins)]
    world.store.forget(HOST)
    world.store.preload(entries, origin="app.toml")
    assert "  static pins of app.toml, set 0 seconds ago for this host" in _message(world, world.store)


@pytest.mark.parametrize("loosely", [False, True], ids=["verified", "unverified"])
def test_no_command_is_named_for_pins_in_memory(world: World, loosely: bool) -> None:
    with PinStore.private() as private:
        private.pin(HOST, world.header.pins)
        text = _message(world, private, loosely=loosely)
    assert f"store.forget('{HOST}')" in text
    assert "dynpin hosts" not in text
    if not loosely:
        assert "\n          in the memory of this program\n" in text
        assert "If you know that the new key is right, in the program:" in text


def test_the_users_own_store_is_named_and_needs_no_option(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with PinStore() as own:
        own.pin(HOST, world.header.pins)
        lines = _message(world, own).splitlines()
        assert f"          in {own.path}" in lines
        assert lines[-1] == f"  If you know that the new key is right:  dynpin hosts forget {HOST}"
