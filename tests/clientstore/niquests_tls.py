"""Run in niquests' own environment: the TLS versions of its sessions with a TLSConfiguration, as JSON."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

import niquests

from dynpin.clientstore import PinStore
from dynpin.clientstore.niquests import PinnedAsyncSession, PinnedSession
from dynpin.lab.network import loopback_names

TLS = niquests.TLSConfiguration(max_version=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-CHACHA20-POLY1305")


def spoken(response: Any) -> list[str]:
    return [ssl.TLSVersion(response.conn_info.tls_version).name, response.conn_info.cipher]


async def asynchronous(store: PinStore, url: str, roots: str) -> list[str]:
    async with PinnedAsyncSession(store, tls_configuration=TLS) as session:
        session.trust_env = False
        return spoken(await session.get(url, verify=roots))


def beside_a_context(store: PinStore, url: str, roots: str) -> str:
    with PinnedSession(store, tls_configuration=TLS, context=ssl.create_default_context(cafile=roots)) as session:
        session.trust_env = False
        try:
            session.get(url)
        except TypeError as error:
            return str(error)
    return "sent"


if __name__ == "__main__":
    site, roots_path = sys.argv[1:]
    with loopback_names(), PinStore.private() as pins:
        with PinnedSession(pins, tls_configuration=TLS) as made:
            made.trust_env = False
            synchronous = spoken(made.get(site, verify=roots_path))
        told = [
            synchronous,
            asyncio.run(asynchronous(pins, site, roots_path)),
            beside_a_context(pins, site, roots_path),
        ]
    print(json.dumps(told))
