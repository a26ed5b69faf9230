"""httpx and httpx2, synchronous, on asyncio and on trio, behind one interface."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import httpx2
import pytest

from dynpin import PinValidationError
from dynpin.clientstore import httpx as pinned_httpx
from dynpin.clientstore import httpx2 as pinned_httpx2
from dynpin.clientstore import pin_violation

from .world import World

__all__ = ["WAYS", "Way", "custom", "every_loop", "every_way", "refused"]


@dataclass(frozen=True)
class Way:
    """One library on one kind of loop: its classes, and how to run one of its clients."""

    library: Any
    pinned: Any
    loop: str | None

    def __str__(self) -> str:
        return f"{self.library.__name__}-{self.loop or 'sync'}"

    def of(self, module: Any, name: str) -> Any:
        """A class of a module, in its synchronous or asynchronous form."""
        if self.loop is not None:
            name = name.replace("Pinned", "PinnedAsync") if name.startswith("Pinned") else f"Async{name}"
        return getattr(module, name)

    def transport(self, world: World, **options: Any) -> Any:
        made = {"verify": world.plain_context(), **options}
        return self.of(self.pinned, "PinnedTransport")(made.pop("store", world.store), **made)

    def plain(self, **options: Any) -> Any:
        """A client of the library's own."""
        return self.of(self.library, "Client")(trust_env=False, **options)

    def client(self, world: World, **options: Any) -> Any:
        """A pinned client."""
        options = {"verify": world.plain_context(), "trust_env": False, **options}
        return self.of(self.pinned, "PinnedClient")(options.pop("store", world.store), **options)

    def visit(self, client: Any, *urls: str, method: str = "GET", **options: Any) -> list[int]:
        """Request each URL, one after the other, and close the client."""
        if self.loop is None:
            with client:
                return [client.request(method, url, **options).status_code for url in urls]

        async def main() -> list[int]:
            async with client:
                return [(await client.request(method, url, **options)).status_code for url in urls]

        found: list[int] = self.run(main)
        return found

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        assert self.loop is not None
        return anyio.run(main, backend=self.loop)


WAYS = [
    Way(library, pinned, loop)
    for library, pinned in ((httpx, pinned_httpx), (httpx2, pinned_httpx2))
    for loop in (None, "asyncio", "trio")
]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)
every_loop = pytest.mark.parametrize("way", [way for way in WAYS if way.loop], ids=str)


def refused(world: World, way: Way, client: Any, url: str, **options: Any) -> PinValidationError:
    """The violation of a visit, of which the attacker must not have read a byte."""
    with pytest.raises(way.library.ConnectError) as caught:
        way.visit(client, url, **options)
    violation = pin_violation(caught.value)
    assert violation is not None
    assert str(violation).splitlines()[0] in str(caught.value)
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
    return violation


def custom(way: Way, inner: Any = None) -> Any:
    """A transport of the user's own: a test double, or one that forwards to another one, as for retries."""
    bases = (way.library.BaseTransport,) if way.loop is None else (way.library.AsyncBaseTransport,)

    class Custom(*bases):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inner = inner
            self.entered = self.closed = False

        def __enter__(self) -> Custom:
            self.entered = True
            return self

        async def __aenter__(self) -> Custom:
            return self.__enter__()

        def handle_request(self, request: Any) -> Any:
            return inner.handle_request(request) if inner else way.library.Response(204)

        async def handle_async_request(self, request: Any) -> Any:
            return await inner.handle_async_request(request) if inner else way.library.Response(204)

        def close(self) -> None:
            self.closed = True
            if inner:
                inner.close()

        async def aclose(self) -> None:
            self.closed = True
            if inner:
                await inner.aclose()

    return Custom()
