"""Run in niquests' own environment: visits by its two sessions, with what came of them as JSON."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys

import niquests

from dynpin.clientstore import PinStore, pin_violation, reporting
from dynpin.clientstore.niquests import PinnedAdapter, PinnedAsyncSession, PinnedSession
from dynpin.errors import UnenforceableContext
from dynpin.lab.network import loopback_names


def failed(error: Exception) -> dict[str, object]:
    violation = pin_violation(error)
    port = violation.report.port if violation is not None and violation.report is not None else None
    return {"error": type(error).__name__, "violation": str(violation) if violation else None, "port": port}


def synchronous(store: PinStore, url: str, verify: str | bool, proxies: dict[str, str]) -> dict[str, object]:
    try:
        with PinnedSession(store) as session:
            session.trust_env = False
            return {"status": session.get(url, timeout=60, proxies=proxies, verify=verify).status_code}
    except niquests.exceptions.RequestException as error:
        return failed(error)


def asynchronous(store: PinStore, url: str, verify: str | bool, proxies: dict[str, str]) -> dict[str, object]:
    async def visit() -> dict[str, object]:
        try:
            async with PinnedAsyncSession(store) as session:
                session.trust_env = False
                response = await session.get(url, timeout=60, proxies=proxies, verify=verify)
                return {"status": response.status_code}
        except niquests.exceptions.RequestException as error:
            return failed(error)

    return asyncio.run(visit())


def certificate_with_a_context(store: PinStore, url: str, roots: str, pem: str) -> str:
    with PinnedSession(store, context=ssl.create_default_context(cafile=roots)) as session:
        try:
            session.get(url, cert=pem)
        except TypeError as error:
            return str(error)
    return "sent"


def refusals(store: PinStore) -> list[str]:
    found: list[str] = []
    session = PinnedSession(store)
    for attempt in (
        lambda: PinnedSession(store, disable_http3=False),
        lambda: PinnedAdapter(store, disable_http3=False),
        lambda: session.mount("https://bank.test", niquests.adapters.HTTPAdapter()),
        # What a session does by itself when it is used after its resolver was closed.
        lambda: session.mount("https://", niquests.adapters.HTTPAdapter()),
    ):
        try:
            attempt()
        except UnenforceableContext as error:
            found.append(str(error))
    return found


if __name__ == "__main__":
    store_path, roots, *steps = sys.argv[1:]
    reporting._GRACE = 120.0  # a busy machine may need longer than a person would wait
    told: list[object] = []
    with loopback_names(), PinStore(store_path) as store:
        for step in steps:
            kind, _, rest = step.partition(" ")
            url, _, proxy = rest.partition(" ")
            proxies = {"https": proxy} if proxy else {}
            if kind == "refusals":
                told.append(refusals(store))
            elif kind == "certificate":
                told.append(certificate_with_a_context(store, url, roots, proxy))
            elif kind == "async":
                told.append(asynchronous(store, url, roots, proxies))
            else:
                told.append(synchronous(store, url, False if kind == "unverified" else roots, proxies))
    print(json.dumps(told))
