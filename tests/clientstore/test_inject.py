"""Programs without a line of dynpin in them: enforced by the environment, or by one call from inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynpin.clientstore import PinStore

from .programs import HTTPX, NOTING, OTHERS, URLLIB, Ground
from .world import HOST, World

REFUSED = f"{HOST} shows none of its pinned keys."


@pytest.fixture
def ground(world: World, tmp_path: Path) -> Ground:
    folder = tmp_path / "ground"
    folder.mkdir()
    world.attacker.headers = [("Public-Key-Pins", str(world.header).replace("max-age=3600", "max-age=0"))]
    return Ground(world, folder)


def pinned(ground: Ground) -> list[str]:
    with PinStore(ground.store) as store:
        return [known.host for known in store.hosts()]


def pin(ground: Ground) -> None:
    with PinStore(ground.store) as store:
        store.pin(HOST, ground.world.header.pins)


def unheard(world: World) -> bool:
    world.attacker.wait_idle()
    return world.attacker.connections > 0 and world.attacker.application_bytes == 0


@pytest.mark.parametrize("program", NOTING)
def test_what_stands_on_http_client_notes_and_enforces(ground: Ground, program: str) -> None:
    world = ground.world
    visit = ground.script(NOTING[program], world.site.url(HOST))
    assert (visit.stdout, visit.stderr) == ("200\n", "")
    assert pinned(ground) == [HOST]
    refused = ground.script(NOTING[program], world.attacker.url(HOST))
    assert refused.returncode != 0
    assert REFUSED in refused.stderr
    assert unheard(world)


@pytest.mark.parametrize("program", OTHERS)
def test_what_has_an_http_of_its_own_is_enforced(ground: Ground, program: str) -> None:
    world = ground.world
    assert ground.script(OTHERS[program], world.site.url(HOST)).stdout == "200\n"
    assert pinned(ground) == []
    pin(ground)
    assert ground.script(OTHERS[program], world.site.url(HOST)).stdout == "200\n"
    refused = ground.script(OTHERS[program], world.attacker.url(HOST))
    assert refused.returncode != 0
    assert REFUSED in refused.stderr
    assert unheard(world)


@pytest.mark.parametrize("code", [URLLIB, HTTPX], ids=["urllib", "httpx"])
def test_an_audit_lets_through_tells_and_notes_nothing(ground: Ground, code: str) -> None:
    pin(ground)
    done = ground.script(code, ground.world.attacker.url(HOST), audit=True)
    assert done.stdout == "200\n"
    assert f"dynpin: audit: this would have been refused: {REFUSED}" in done.stderr
    assert pinned(ground) == [HOST]  # the attacker's header would have removed it
