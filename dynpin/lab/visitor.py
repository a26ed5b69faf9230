"""One visit by a process of its own: `python -m dynpin.lab.visitor STORE ROOTS URL PORT`, its outcome as JSON."""

from __future__ import annotations

import json
import os
import sys
from urllib.parse import urlsplit

import httpx

from dynpin.clientstore import PinStore, enforce, peer_of
from dynpin.lab.network import loopback_names

__all__ = ["visit"]


def visit(store_path: str, roots: str, url: str, port: int) -> dict[str, object]:
    """Visit a URL whose host is answered at `port` of 127.0.0.1, with the pins of a store that others wrote."""
    import ssl  # noqa: PLC0415

    host = urlsplit(url).hostname or ""
    with PinStore(store_path) as store, loopback_names({host: port}):
        context = enforce(ssl.create_default_context(cafile=roots), store)
        with httpx.Client(verify=context) as client, client.stream("GET", url) as response:
            peer = peer_of(response.extensions["network_stream"].get_extra_info("socket"))
        validation = store.validate(host, peer.pins if peer else ())
    return {
        "process": os.getpid(),
        "status": response.status_code,
        "ok": validation.ok,
        "matched": str(validation.matched) if validation.matched else None,
        "reason": validation.reason,
    }


if __name__ == "__main__":
    print(json.dumps(visit(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
