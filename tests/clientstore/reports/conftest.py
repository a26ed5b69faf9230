"""Fixtures for the tests of violation reports: a site and its attacker, a clock and a store with the same time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from dynpin.clientstore import PinStore

from ...clock import Clock
from ..world import World, tls_world


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, tmp_path: Path, clock: Clock) -> Iterator[World]:
    with tls_world(honest, rogue, tmp_path, clock=clock) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[PinStore]:
    with PinStore(tmp_path / "pins", clock=clock) as store:
        yield store
