"""How long an event loop stands still at most, while another process holds the store's write lock for five seconds.

Every response in these seconds has pins to be noted, and every noting waits for the lock. The same is measured without
the lock: ``make bench ARGS=tests/benchmarks/bench_event_loop.py``. docs/explanation/performance.md has the table.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from dynpin import PublicKeyPins
from dynpin.clientstore import PinStore
from dynpin.clientstore.aiohttp import pinned_session
from dynpin.clientstore.httpx import PinnedAsyncClient
from dynpin.clientstore.httpx2 import PinnedAsyncClient as PinnedAsyncClient2
from dynpin.lab.network import TLSServer, loopback_names

from ..clientstore.world import HOST, leaf_pin
from .turns import against, tell

SECONDS = 5
TICK = 0.001
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""

Get = Callable[[str], Awaitable[object]]


@asynccontextmanager
async def by_httpx(store: PinStore, context: ssl.SSLContext, made: Any = PinnedAsyncClient) -> AsyncGenerator[Get]:
    async with made(store, verify=context, trust_env=False) as client:
        yield client.get


def by_httpx2(store: PinStore, context: ssl.SSLContext) -> AbstractAsyncContextManager[Get]:
    return by_httpx(store, context, PinnedAsyncClient2)


@asynccontextmanager
async def by_aiohttp(store: PinStore, context: ssl.SSLContext) -> AsyncGenerator[Get]:
    async with pinned_session(store, ssl=context) as session:

        async def get(url: str) -> bytes:
            async with session.get(url) as response:
                return await response.read()

        yield get


class Site(TLSServer):
    """Sends other pins with every response."""

    def _response(self, request: bytes) -> bytes:
        self.headers = [("Public-Key-Pins", str(PublicKeyPins(self.pins, max_age=next(self.ages))))]
        return super()._response(request)

    def __init__(self, certificate: trustme.LeafCert, backup: trustme.LeafCert) -> None:
        self.pins, self.ages = (leaf_pin(certificate), leaf_pin(backup)), itertools.count(3_600, 60)
        super().__init__(certificate)


async def longest_standstill(get: Get, url: str, seconds: float) -> tuple[float, int]:
    """Milliseconds, and how many requests were made meanwhile."""
    longest, requests, end = 0.0, 0, time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal requests
        while time.perf_counter() < end:
            await get(url)
            requests += 1

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    while not all(task.done() for task in asking):
        begun = time.perf_counter()
        await asyncio.sleep(TICK)
        longest = max(longest, time.perf_counter() - begun - TICK)
    await asyncio.gather(*asking)
    return longest * 1e3, requests


@pytest.mark.parametrize("client", [by_httpx, by_httpx2, by_aiohttp], ids=lambda client: client.__name__)
def test_the_longest_standstill_of_the_loop(
    client: Callable[[PinStore, ssl.SSLContext], AbstractAsyncContextManager[Get]], tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())

    async def main() -> list[tuple[float, int]]:
        async with client(store, context) as get:
            await get(site.url(HOST))  # what is made at the first request, and the first handshake
            free = await longest_standstill(get, site.url(HOST), 1.0)
            command = [sys.executable, "-c", HOLD, str(store.path), str(SECONDS)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
                assert holder.stdout is not None
                holder.stdout.readline()
                held = await longest_standstill(get, site.url(HOST), SECONDS)
            return [free, held]

    with (
        loopback_names(),
        Site(authority.issue_cert(HOST), authority.issue_cert(HOST)) as site,
        PinStore(tmp_path / "pins") as store,
    ):
        (free, _), (held, requests) = asyncio.run(main())
    tell(
        f"the loop's longest standstill, {client.__name__}",
        ms=f"{held:.1f}",
        without_the_lock_ms=f"{free:.1f}",
        aim=against(round(max(50, 2 * free)), held),
        requests_meanwhile=requests,
    )
    assert requests > 0
