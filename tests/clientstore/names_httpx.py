"""The rows of test_names.py for httpx and httpx2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dynpin.clientstore.httpx import PinnedClient
from dynpin.clientstore.httpx2 import PinnedAsyncClient

from .names import ASKED, OTHER, Row
from .sites import Proxy
from .world import World

__all__ = ["ROWS"]

SECRET = {"Authorization": "Bearer secret"}
IP = "127.0.0.1"
FASZ, BUECHER = "xn--fa-hia.test", "xn--bcher-kva.test"

Send = Callable[[World, int], object]
Visit = Callable[..., object]


def by_httpx(world: World, url: str, headers: dict[str, str], extensions: dict[str, Any], **options: Any) -> object:
    with PinnedClient(world.store, verify=world.plain_context(), trust_env=False, **options) as client:
        return client.get(url, headers=headers, extensions=extensions).status_code


def by_httpx2(world: World, url: str, headers: dict[str, str], extensions: dict[str, Any], **options: Any) -> object:
    async def main() -> object:
        async with PinnedAsyncClient(world.store, verify=world.plain_context(), trust_env=False, **options) as client:
            return (await client.get(url, headers=headers, extensions=extensions)).status_code

    return asyncio.run(main())


def send(
    visit: Visit,
    host: str,
    *,
    field: str | None = None,
    sni: str | None = None,
    target: str | None = None,
    proxied: bool = False,
) -> Send:
    def visit_it(world: World, port: int) -> object:
        headers = {**SECRET, **({} if field is None else {"Host": field})}
        extensions: dict[str, Any] = {} if sni is None else {"sni_hostname": sni}
        if target is not None:
            extensions["target"] = target.format(port=port).encode()
        with Proxy() as proxy:
            options = {"proxy": proxy.url} if proxied else {}
            return visit(world, f"https://{host}:{port}/", headers, extensions, **options)

    return visit_it


ROWS = [
    row
    for library, visit in (("httpx", by_httpx), ("httpx2, async", by_httpx2))
    for row in (
        Row(library, "sni_hostname", ASKED, OTHER, send(visit, ASKED, sni=OTHER), taken=False),
        Row(library, "sni_hostname at an IP address", ASKED, IP, send(visit, IP, sni=ASKED), taken=False),
        Row(library, "sni_hostname and a Host field", ASKED, IP, send(visit, IP, sni=ASKED, field=ASKED), taken=False),
        Row(library, "sni_hostname of the same name", ASKED, ASKED, send(visit, ASKED, sni=ASKED.upper())),
        Row(library, "a Host field over the TLS of another name", ASKED, OTHER, send(visit, OTHER, field=ASKED)),
        Row(library, "a Host field with a port", ASKED, OTHER, send(visit, OTHER, field=f"{ASKED.upper()}:443")),
        Row(library, "a Host field at an IP address", ASKED, IP, send(visit, IP, field=ASKED)),
        Row(library, "a Host field behind CONNECT", ASKED, OTHER, send(visit, OTHER, field=ASKED, proxied=True)),
        Row(library, "a Host field of the same name", ASKED, ASKED, send(visit, ASKED, field=f"{ASKED.upper()}.")),
        Row(
            library,
            "the URL of another name for a target",
            ASKED,
            OTHER,
            send(visit, OTHER, target=f"https://{ASKED}/"),
        ),
        Row(
            library, "the same URL for a target", ASKED, ASKED, send(visit, ASKED, target=f"https://{ASKED}:{{port}}/")
        ),
        Row(library, "faß.test", FASZ, FASZ, send(visit, "faß.test")),
        Row(library, "bücher.test", BUECHER, BUECHER, send(visit, "bücher.test")),
        Row(library, "capitals", ASKED, ASKED, send(visit, ASKED.upper())),
    )
]
