"""Run in niquests' own environment: visits by its two sessions, with the outcomes as JSON."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import ssl
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import niquests
import urllib3  # the fork that niquests installs

from dynpin.clientstore import PinStore, pin_violation
from dynpin.clientstore.niquests import PinnedAdapter, PinnedAsyncSession, PinnedSession
from dynpin.clientstore.reports import queue
from dynpin.errors import UnenforceableContext
from dynpin.lab.network import names_led

Step = dict[str, Any]


def failed(error: BaseException) -> dict[str, object]:
    violation = pin_violation(error)
    port = violation.report.port if violation is not None and violation.report is not None else None
    told: dict[str, object] = {"error": type(error).__name__, "text": str(error), "port": port}
    return {**told, "violation": None if violation is None else str(violation)}


def _made(store: PinStore, step: Step, made: Callable[..., Any]) -> Any:
    context = ssl.create_default_context(cafile=step["roots"]) if step.get("context") else None
    session = made(store, context=context, **step.get("options", {}))
    session.trust_env = False
    for adapter in session.adapters.values():
        if step.get("own manager"):
            adapter.poolmanager = urllib3.PoolManager()
        # No option of a session leads here, but a user's own adapter may.
        adapter.poolmanager.connection_pool_kw.update(step.get("pool", {}))
    return session


def _asked(step: Step) -> dict[str, Any]:
    proxies = {"https": step["proxy"], "http": step["proxy"]} if step.get("proxy") else {}
    ways: dict[str, Any] = {"timeout": 60, "proxies": proxies, "headers": step.get("headers", {})}
    if not step.get("context") or "verify" in step:
        ways["verify"] = step.get("verify", step["roots"])
    return {**ways, "cert": step["cert"]} if "cert" in step else ways


def synchronous(store: PinStore, step: Step) -> dict[str, object]:
    try:
        with _made(store, step, PinnedSession) as session:
            statuses = [session.get(url, **_asked(step)).status_code for url in step["urls"]]
    except (niquests.exceptions.RequestException, UnenforceableContext, TypeError) as error:
        return failed(error)
    return {"statuses": statuses}


def asynchronous(store: PinStore, step: Step) -> dict[str, object]:
    async def visit() -> dict[str, object]:
        try:
            async with _made(store, step, PinnedAsyncSession) as session:
                return {"statuses": [(await session.get(url, **_asked(step))).status_code for url in step["urls"]]}
        except (niquests.exceptions.RequestException, UnenforceableContext, TypeError) as error:
            return failed(error)

    return asyncio.run(visit())


def multiplexed(store: PinStore, step: Step) -> dict[str, object]:
    """Send all requests, then gather the responses; the headers are those of the first request."""
    with _made(store, {**step, "options": {"multiplexed": True}}, PinnedSession) as session:
        first = session.get(step["urls"][0], **_asked(step))
        others = [session.get(url, **_asked({**step, "headers": {}})) for url in step["urls"][1:]]
        session.gather()
        return {"statuses": [response.status_code for response in (first, *others)]}


class _OwnPool(PinnedAdapter):
    def get_connection(self, *args: Any, **options: Any) -> Any:
        return urllib3.HTTPSConnectionPool("bank.test")


def refusals(store: PinStore, step: Step) -> list[str]:
    def replaced(made: Any) -> Any:
        """A session whose adapter was replaced in its attribute."""
        changed = made(store)
        changed.adapters["https://"] = plain()
        return changed

    def with_its_own_pool() -> Any:
        session.mount("https://own.test", _OwnPool(store))
        return session.get("https://own.test/")

    found: list[str] = []
    session = PinnedSession(store)
    plain = niquests.adapters.HTTPAdapter
    attempts: list[Callable[[], object]] = [
        lambda: PinnedSession(store, disable_http3=False),
        lambda: PinnedAdapter(store, disable_http3=False),
        lambda: session.mount("https://bank.test", plain()),
        # What a session does by itself if it is used after its resolver was closed.
        lambda: session.mount("https://", plain()),
        lambda: replaced(PinnedSession).get("https://bank.test/"),
        lambda: asyncio.run(replaced(PinnedAsyncSession).get("https://bank.test/")),
        with_its_own_pool,
    ]
    attempts += [partial(session.mount, prefix, plain()) for prefix in step["prefixes"]]
    for attempt in attempts:
        try:
            attempt()
        except UnenforceableContext as error:
            found.append(str(error))
    session.mount("https://", PinnedAdapter(store))
    session.mount("http+unix://", niquests.adapters.HTTPAdapter())
    return found


def resolvers(store: PinStore, step: Step) -> list[str]:
    found: list[str] = []
    for resolver in step["resolvers"]:
        for made in (PinnedSession, PinnedAsyncSession):
            try:
                made(store, resolver=resolver)
                found.append("taken")
            except UnenforceableContext as error:
                found.append(str(error))
    return found


def copies(store: PinStore, step: Step) -> list[str]:
    found: list[str] = []
    for copied in (pickle.dumps, copy.deepcopy):
        for made in (PinnedSession(store), PinnedAsyncSession(store)):
            try:
                copied(made)
            except TypeError as error:
                found.append(str(error))
    return found


def descriptors(store: PinStore, step: Step) -> list[int]:
    """How many descriptors of the user's own store are open, before and after 30 clients of each kind."""
    path = step["users_own"]
    sessions = [_made(None, step, PinnedSession) for _ in range(30)]  # type: ignore[arg-type]
    for session in sessions:
        session.get(step["urls"][0], **_asked(step))
    before = _open(path)
    for session in sessions:
        session.close()

    async def visit() -> None:
        made = [_made(None, step, PinnedAsyncSession) for _ in range(30)]  # type: ignore[arg-type]
        for session in made:
            await session.get(step["urls"][0], **_asked(step))
        for session in made:
            await session.close()

    between = _open(path)
    asyncio.run(visit())
    return [before, between, _open(path)]


def _open(path: str) -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link.readlink()).startswith(path) for link in links)


KINDS: dict[str, Callable[[PinStore, Step], object]] = {
    "sync": synchronous,
    "async": asynchronous,
    "multiplexed": multiplexed,
    "refusals": refusals,
    "resolvers": resolvers,
    "copies": copies,
    "descriptors": descriptors,
}

if __name__ == "__main__":
    store_path, roots, *steps = sys.argv[1:]
    queue._GRACE = 120.0  # a busy machine may take longer than a person would wait
    told: list[object] = []
    with names_led(lambda name, port: ("127.0.0.1", port)), PinStore(store_path) as pins:
        for text in steps:
            asked: Step = {"roots": roots, **json.loads(text)}
            told.append(KINDS[asked["kind"]](pins, asked))
    print(json.dumps(told))
