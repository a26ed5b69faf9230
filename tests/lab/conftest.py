"""What the tests of the proxy share: its environment, and the site in front of which it stands."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.environments import proxy_environment

from .pinned_place import Place


@pytest.fixture(scope="session")
def proxy_bin() -> Path:
    """The programs of an environment with mitmproxy."""
    return proxy_environment()


@pytest.fixture
def place(tmp_path: Path) -> Generator[Place]:
    """A site that pins; nothing is noted yet."""
    made = Place(tmp_path)
    with made.site:
        yield made
