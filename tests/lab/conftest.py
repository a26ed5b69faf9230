"""Fixtures for the tests of the lab: every scenario played once; the proxy's environment, and the site behind it."""

from __future__ import annotations

import pickle
from collections.abc import Generator
from pathlib import Path

import pytest

from dynpin.lab.playing import Playing, play_all
from dynpin.lab.scenarios import scenarios
from tests.environments import made_once, proxy_environment

from .pinned_place import Place


@pytest.fixture(scope="session")
def proxy_bin() -> Path:
    """The programs of an environment with mitmproxy."""
    return proxy_environment()


@pytest.fixture
def place(tmp_path: Path) -> Generator[Place]:
    """A site that pins its keys; nothing is noted yet."""
    made = Place(tmp_path)
    with made.site:
        yield made


@pytest.fixture(scope="session")
def playings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Playing]:
    """Every scenario with every agent, played in two processes, once for all test processes."""

    def play(folder: Path) -> None:
        (folder / "playings").write_bytes(pickle.dumps(play_all(scenarios().values(), processes=2)))

    done: list[Playing] = pickle.loads((made_once(request, tmp_path_factory, "lab", play) / "playings").read_bytes())
    return done


@pytest.fixture(scope="session")
def played(playings: list[Playing]) -> dict[tuple[str, str], Playing]:
    """The same, by the names of scenario and agent."""
    return {(each.scenario, each.agent): each for each in playings}
