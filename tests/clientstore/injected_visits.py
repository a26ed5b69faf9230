"""Run in a process of its own: visits by every library while truststore replaces ssl.SSLContext."""

from __future__ import annotations

import gc
import json
import ssl
import sys

import truststore

BEFORE, site, attacker = sys.argv[1] == "before", sys.argv[2], sys.argv[3]
if BEFORE:  # every later import of ssl.SSLContext gets truststore's
    truststore.inject_into_ssl()

from dynpin.clientstore import PinStore, pin_violation  # noqa: E402
from dynpin.lab.network import loopback_names  # noqa: E402
from tests.clientstore.libraries import LIBRARIES  # noqa: E402

if not BEFORE:
    truststore.inject_into_ssl()

told: dict[str, object] = {}
with loopback_names():
    for library in LIBRARIES:
        with PinStore.private() as store:
            statuses = library.visit(store, ssl.create_default_context(), [site])
            noted = [known.host for known in store.hosts()]
            violation = None
            try:
                library.visit(store, ssl.create_default_context(), [attacker])
            except library.error as error:
                violation = pin_violation(error)
            told[library.name] = [statuses, noted, str(violation).partition("\n")[0]]
        gc.collect()
print(json.dumps(told))
