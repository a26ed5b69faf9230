"""One enforcement point for all libraries: every library refuses, and the attacker reads not one byte.

Each library only gets the context that `enforce` has hardened. It raises its own error for a bad certificate, and
`pin_violation` finds the PinValidationError in that error.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import os
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trustme

from dynpin.clientstore import pin_violation
from dynpin.lab.network import loopback_names

from .world import HOST, World, tls_world

Call = Callable[[ssl.SSLContext, str], object]


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, tmp_path: Path) -> Iterator[World]:
    with loopback_names(), tls_world(honest, rogue, tmp_path) as made:
        made.pin_site()
        yield made


def by_http_client(context: ssl.SSLContext, url: str) -> object:
    host, _, port = url.removeprefix("https://").removesuffix("/").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
    try:
        connection.request("GET", "/", headers={"Authorization": "Bearer secret"})
        return connection.getresponse().read()
    finally:
        connection.close()


def by_urllib_request(context: ssl.SSLContext, url: str) -> object:
    with urllib.request.urlopen(url, context=context, timeout=60) as response:
        return response.read()


def by_urllib3(context: ssl.SSLContext, url: str) -> object:
    urllib3 = pytest.importorskip("urllib3")
    with urllib3.PoolManager(ssl_context=context, retries=False) as manager:
        return manager.request("GET", url).data


def by_requests(context: ssl.SSLContext, url: str) -> object:
    requests = pytest.importorskip("requests")
    adapters = importlib.import_module("requests.adapters")

    class Adapter(adapters.HTTPAdapter):  # type: ignore[misc, name-defined] # requests' documented way to a context
        def build_connection_pool_key_attributes(self, *args: object) -> object:
            host, pool = super().build_connection_pool_key_attributes(*args)
            return host, {**pool, "ssl_context": context}

    with requests.Session() as session:
        session.mount("https://", Adapter())
        return session.get(url, timeout=60).content


def by_httpx(context: ssl.SSLContext, url: str) -> object:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(verify=context, timeout=60) as client:
        return client.get(url).content


def by_httpx2(context: ssl.SSLContext, url: str) -> object:
    httpx2 = pytest.importorskip("httpx2")
    with httpx2.Client(verify=context, timeout=60) as client:
        return client.get(url).content


def _run(make: Callable[[], Awaitable[object]], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> object:
    async def main() -> object:
        return await make()

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main())


def by_httpx_async(context: ssl.SSLContext, url: str) -> object:
    httpx = pytest.importorskip("httpx")

    async def get() -> object:
        async with httpx.AsyncClient(verify=context, timeout=60) as client:
            return (await client.get(url)).content

    return _run(get)


def by_httpx2_async(context: ssl.SSLContext, url: str) -> object:
    httpx2 = pytest.importorskip("httpx2")

    async def get() -> object:
        async with httpx2.AsyncClient(verify=context, timeout=60) as client:
            return (await client.get(url)).content

    return _run(get)


def by_aiohttp(context: ssl.SSLContext, url: str) -> object:
    return _run(lambda: _aiohttp_get(context, url))


def by_aiohttp_on_uvloop(context: ssl.SSLContext, url: str) -> object:
    uvloop = pytest.importorskip("uvloop")
    return _run(lambda: _aiohttp_get(context, url), uvloop.new_event_loop)


async def _aiohttp_get(context: ssl.SSLContext, url: str) -> bytes:
    aiohttp = pytest.importorskip("aiohttp")

    class Loopback(aiohttp.abc.AbstractResolver):  # type: ignore[misc, name-defined] # uvloop asks no socket.getaddrinfo
        async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:
            found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET}
            return [{**found, "proto": 0, "flags": socket.AI_NUMERICHOST}]

        async def close(self) -> None:
            pass

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Loopback())) as session,
        session.get(url, ssl=context) as response,
    ):
        body: bytes = await response.read()
        return body


def by_asyncio_streams(context: ssl.SSLContext, url: str) -> object:
    host, _, port = url.removeprefix("https://").removesuffix("/").partition(":")

    async def get() -> object:
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    return _run(get)


LIBRARIES: list[Call] = [
    by_http_client,
    by_urllib_request,
    by_urllib3,
    by_requests,
    by_httpx,
    by_httpx_async,
    by_httpx2,
    by_httpx2_async,
    by_aiohttp,
    by_aiohttp_on_uvloop,
    by_asyncio_streams,
]


@pytest.mark.parametrize("call", LIBRARIES, ids=lambda call: call.__name__)
def test_the_pinned_key_is_accepted_and_another_server_receives_nothing(world: World, call: Call) -> None:
    context = world.context()
    answer = call(context, world.site.url(HOST))
    assert isinstance(answer, bytes)
    assert answer.endswith(b"hello")

    with pytest.raises(Exception) as caught:  # noqa: PT011 - which class it is differs by library; what it holds does not
        call(context, world.attacker.url(HOST))
    violation = pin_violation(caught.value)
    assert violation is not None
    assert HOST in str(violation)
    world.attacker.wait_idle()
    assert world.attacker.connections >= 1
    assert world.attacker.application_bytes == 0


@pytest.mark.parametrize("call", LIBRARIES, ids=lambda call: call.__name__)
def test_without_enforcement_the_attacker_receives_the_request(world: World, call: Call) -> None:
    # So that the zero above means something: the same call, with a context that is not enforced.
    assert call(world.plain_context(), world.attacker.url(HOST))
    world.attacker.wait_idle()
    assert world.attacker.application_bytes > 0


def test_this_environment_has_the_real_urllib3() -> None:
    # niquests replaces urllib3 by a fork, so it has an environment of its own below.
    urllib3 = pytest.importorskip("urllib3")
    assert not hasattr(urllib3, "ConnectionInfo"), "this is urllib3.future, not urllib3"
    assert importlib.util.find_spec("niquests") is None


NIQUESTS = """
import json, ssl, sys
import niquests
from dynpin.clientstore import PinStore, enforce, pin_violation
from dynpin.lab.network import loopback_names

store_path, roots, good, bad = sys.argv[1:]
store = PinStore(store_path)
context = enforce(ssl.create_default_context(cafile=roots), store)

class Adapter(niquests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, **kwargs, ssl_context=context)

told = {"forked": hasattr(__import__("urllib3"), "ConnectionInfo")}
with loopback_names(), niquests.Session(disable_http3=True) as session:
    session.mount("https://", Adapter(disable_http3=True))
    told["good"] = session.get(good, timeout=60, verify=roots).status_code
    try:
        session.get(bad, timeout=60, verify=roots)
        told["violation"] = None
    except niquests.exceptions.RequestException as error:
        told["error"] = type(error).__name__
        told["violation"] = str(pin_violation(error))
print(json.dumps(told))
"""


ROOT = Path(__file__).parents[2]


def test_niquests_with_http3_switched_off(world: World, niquests_python: Path) -> None:
    roots = world.roots_file()
    arguments = [str(world.store.path), str(roots), world.site.url(HOST), world.attacker.url(HOST)]
    done = subprocess.run(
        [niquests_python, "-c", NIQUESTS, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["forked"]
    assert told["good"] == 200
    assert f"{HOST} shows none of its pinned keys" in told["violation"]
    world.attacker.wait_idle()
    assert world.attacker.connections >= 1
    assert world.attacker.application_bytes == 0
