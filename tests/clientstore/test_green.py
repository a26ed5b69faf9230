"""gevent and eventlet: `enforce` refuses if pins cannot be enforced, and its advice works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environments import green_environment, told_by

from .world import World


@pytest.fixture(scope="session")
def python() -> Path:
    return green_environment() / "python"


def _visits(world: World, python: Path, when: str, what: str) -> dict[str, str]:
    world.pin_site()
    roots = world.roots_file()
    ports = str(world.site.port), str(world.attacker.port)
    told: dict[str, str] = told_by(
        python, "tests.clientstore.green_visits", when, what, str(world.store.path), roots, *ports
    )
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
    return told


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("what", "advice"),
    [
        ("gevent", "import ssl, and then call gevent.monkey.patch_all(ssl=False)"),
        ("eventlet", "call eventlet.monkey_patch(socket=False)"),
    ],
)
def test_sockets_in_the_place_of_ssls_are_refused_with_advice(
    world: World, python: Path, when: str, what: str, advice: str
) -> None:
    told = _visits(world, python, when, what)
    assert told.keys() == {"unenforceable"}
    assert advice in told["unenforceable"]
    assert world.site.connections == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["gevent, ssl left", "eventlet, sockets left"])
def test_the_advice_works(world: World, python: Path, when: str, what: str) -> None:
    told = _visits(world, python, when, what)
    assert told == {str(world.site.port): "HTTP/1.1 200 OK", str(world.attacker.port): "PinValidationError"}
