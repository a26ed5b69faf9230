"""Visits a site and its attacker under gevent or eventlet, in a process of its own: python -m … WHEN WHAT STORE …"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

PATCHES: dict[str, dict[str, Any]] = {
    "gevent": {},
    "gevent, ssl left": {"ssl": False},
    "eventlet": {},
    "eventlet, sockets left": {"socket": False},
}


def patch(what: str) -> None:
    name = what.partition(",")[0]
    if name == "gevent":
        if "left" in what:
            importlib.import_module("ssl")
        importlib.import_module("gevent.monkey").patch_all(**PATCHES[what])
    else:
        importlib.import_module("eventlet").monkey_patch(**PATCHES[what])


def main(when: str, what: str, store_file: str, roots: str, *ports: str) -> dict[str, object]:
    if when == "before":
        patch(what)
    import socket
    import ssl

    from dynpin.clientstore import PinStore, enforce, pin_violation
    from dynpin.errors import UnenforceableContext

    context = ssl.create_default_context(cafile=roots)
    if when == "after":
        patch(what)
    told: dict[str, object] = {}
    with PinStore(Path(store_file)) as store:
        try:
            enforce(context, store)
        except UnenforceableContext as error:
            return {"unenforceable": str(error)}
        for port in ports:
            try:
                with (
                    socket.create_connection(("127.0.0.1", int(port)), timeout=60) as raw,
                    context.wrap_socket(raw, server_hostname="bank.test") as tls,
                ):
                    tls.sendall(b"GET / HTTP/1.1\r\nHost: bank.test\r\nConnection: close\r\n\r\n")
                    told[port] = tls.recv(15).decode()
            except OSError as error:
                told[port] = type(pin_violation(error)).__name__
    return told


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
