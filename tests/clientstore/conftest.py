"""Fixtures for the tests of clients: names that resolve, a site, its attacker, a store. A module may have its own."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import trustme

from dynpin.clientstore import PinStore
from dynpin.lab.network import loopback_names
from tests.environments import niquests_environment

from ..clock import Clock
from .inbox import Inbox
from .sites import Site
from .world import HOST, World


@pytest.fixture(scope="session")
def honest() -> trustme.CA:
    """The authority of the site."""
    return trustme.CA()


@pytest.fixture(scope="session")
def rogue() -> trustme.CA:
    """Another authority that clients trust as well."""
    return trustme.CA()


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the file at each look-up: no test waits for the half second between two looks."""
    monkeypatch.setattr("dynpin.clientstore.store.files.LOOK_EVERY", 0.0)


@pytest.fixture(autouse=True)
def _collect_what_is_left_open(request: pytest.FixtureRequest) -> Generator[None]:
    """Collect garbage at a time when it may be collected, and not during a later test."""
    yield
    if any("unclosed" in str(mark.args) for mark in request.node.iter_markers("filterwarnings")):
        gc.collect()


@pytest.fixture
def clock() -> Clock:
    """The store's clock; a test moves it."""
    return Clock()


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, clock: Clock, tmp_path: Path) -> Iterator[World]:
    """`site` sends the pins of its key and of a backup; nothing is pinned yet."""
    certificate, backup, stolen = honest.issue_cert(HOST), honest.issue_cert(HOST), rogue.issue_cert(HOST)
    with (
        loopback_names(),
        Site(certificate) as site,
        Site(stolen) as attacker,
        PinStore(tmp_path / "pins", clock=clock) as store,
    ):
        made = World(honest, rogue, certificate, backup, stolen, site, attacker, store, tmp_path)
        site.headers = [("Public-Key-Pins", str(made.header))]
        yield made


@pytest.fixture
def routes() -> Iterator[dict[str, int]]:
    """The port behind each name; a test adds some."""
    routes: dict[str, int] = {}
    with loopback_names(routes):
        yield routes


@pytest.fixture
def inbox(routes: dict[str, int]) -> Iterator[Inbox]:
    """A collector of reports, under the name report.test."""
    with Inbox() as inbox:
        routes["report.test"] = inbox.port
        yield inbox


@pytest.fixture(scope="session")
def niquests_python() -> Path:
    """The interpreter of an environment with niquests, made once for each checkout; skips if it cannot be made."""
    return niquests_environment() / "python"
