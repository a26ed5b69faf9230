"""Run in a process of its own: visits by a pinned session while a test double replaces sockets, as JSON."""

from __future__ import annotations

import json
import ssl
import sys
import warnings
from typing import Any

import requests

from dynpin import UnenforceableContext
from dynpin.clientstore import PinStore
from dynpin.clientstore.requests import PinnedSession

from . import doubles

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    path, roots, double, when, own, *urls = sys.argv[1:]
    context = ssl.create_default_context(cafile=roots) if own == "own" else None
    ways: dict[str, Any] = {"timeout": 60} if own == "own" else {"timeout": 60, "verify": roots}
    told: list[str] = []
    with PinStore(path) as store:
        session = PinnedSession(store, context=context)
        with getattr(doubles, double)(None):
            if when == "inside":
                session = PinnedSession(store, context=context)
            session.trust_env = False
            for url in urls:
                try:
                    told.append(session.get(url, headers={"Authorization": "Bearer secret"}, **ways).text)
                except (requests.exceptions.RequestException, UnenforceableContext) as error:
                    told.append(str(error))
            session.close()
    print(json.dumps(told))
