"""Shared by the tests of single libraries."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import httpx
import httpx2
import pytest

from dynpin.clientstore import pin_violation
from dynpin.clientstore.httpx import PinnedAsyncClient, PinnedClient
from dynpin.clientstore.httpx2 import PinnedAsyncClient as PinnedAsyncClient2
from dynpin.clientstore.httpx2 import PinnedClient as PinnedClient2

from .world import World

HTTPX = [(httpx, PinnedClient, PinnedAsyncClient), (httpx2, PinnedClient2, PinnedAsyncClient2)]


every_httpx = pytest.mark.parametrize(("library", "client_class", "async_class"), HTTPX, ids=["httpx", "httpx2"])


def run(main: Callable[[], Awaitable[object]]) -> object:
    async def wrapped() -> object:
        return await main()

    return asyncio.run(wrapped())


def assert_unheard(world: World, error: BaseException) -> None:
    violation = pin_violation(error)
    assert violation is not None
    error.__traceback__ = None
    gc.collect()
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
