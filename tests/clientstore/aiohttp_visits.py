"""One request of an aiohttp session, and the outcome of a refused one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
import trustme

from dynpin import PinValidationError
from dynpin.clientstore import pin_violation
from dynpin.clientstore.aiohttp import pinned_session

from .sites import Site
from .world import HOST, World

__all__ = ["OTHER", "attacker_of_many_names", "get", "refused", "visit"]

OTHER = "other.test"


async def get(session: aiohttp.ClientSession, url: str, **options: Any) -> int:
    async with session.get(url, **options) as response:
        await response.read()
        return response.status


def visit(world: World, url: str, *, connector: dict[str, Any] | None = None, **options: Any) -> int:
    """One request of a session that trusts both authorities."""

    async def main() -> int:
        async with pinned_session(world.store, ssl=world.plain_context(), **(connector or {})) as session:
            return await get(session, url, **options)

    return asyncio.run(main())


def refused(attempt: Callable[[], object]) -> PinValidationError:
    with pytest.raises(aiohttp.ClientConnectorCertificateError) as caught:
        attempt()
    violation = pin_violation(caught.value)
    assert violation is not None
    caught.value.__traceback__ = None
    gc.collect()
    return violation


@contextlib.contextmanager
def attacker_of_many_names(rogue: trustme.CA) -> Iterator[Site]:
    """An attacker with certificates for all names that TLS may verify."""
    names = (HOST, OTHER, "127.0.0.1", "fass.test", "xn--fa-hia.test", "proxy.test")
    with Site(rogue.issue_cert(*names)) as server:
        yield server
