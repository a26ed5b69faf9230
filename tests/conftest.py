"""What all tests share."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

# A busy machine is no fault of the code: how long an example takes decides nothing.
settings.register_profile("dynpin", deadline=None)
settings.load_profile("dynpin")


@pytest.fixture(scope="session", autouse=True)
def _own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """No test reads or writes the pins of the person who runs it, in this process or in one that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


def _loopback_only(event: str, args: tuple[object, ...]) -> None:
    """A test that would leave this machine fails, instead of passing where there is a network."""
    if event != "socket.connect" or not isinstance(args[1], tuple):
        return
    host = str(args[1][0])
    try:
        allowed = ipaddress.ip_address(host).is_loopback
    except ValueError:
        allowed = host in ("", "localhost")
    if not allowed:
        raise PermissionError(f"a test connects to {args[1]!r}: tests stay on the loopback interface")


# It stays until the process ends: an audit hook cannot be removed.
sys.addaudithook(_loopback_only)
