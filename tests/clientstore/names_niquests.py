"""The rows of test_names.py for niquests, in its own environment."""

from __future__ import annotations

import json
from typing import Any

from dynpin import PinValidationError, UnenforceableContext
from tests.environments import niquests_environment, told_by

from .names import ASKED, OTHER, Row
from .world import World

__all__ = ["ROWS"]

IP = "127.0.0.1"
FASZ, BUECHER = "xn--fa-hia.test", "xn--bcher-kva.test"


class _Send:
    """One request by a session; its refusal is raised here."""

    def __init__(self, kind: str, host: str, host_field: str | None = None, **step: Any) -> None:
        field = {} if host_field is None else {"Host": host_field}
        self.host = host
        self.step = {"kind": kind, "headers": {"Authorization": "Bearer secret", **field}, **step}

    def __call__(self, world: World, port: int) -> object:
        roots = world.roots_file()
        python = niquests_environment() / "python"
        step = json.dumps({**self.step, "urls": [f"https://{self.host}:{port}/"]})
        (told,) = told_by(python, "tests.clientstore.niquests_visits", world.folder / "pins", roots, step)
        if "statuses" in told:
            return told["statuses"]
        if told["violation"] is not None:
            raise PinValidationError(told["violation"])
        raise UnenforceableContext(told["text"]) if told["error"] == "UnenforceableContext" else OSError(told["text"])


ROWS = [
    Row("niquests", "a Host field over the TLS of another name", ASKED, OTHER, _Send("sync", OTHER, ASKED)),
    Row("niquests", "a Host field at an IP address", ASKED, IP, _Send("sync", IP, ASKED)),
    Row("niquests, async", "a Host field over the TLS of another name", ASKED, OTHER, _Send("async", OTHER, ASKED)),
    Row(
        *("niquests", "server_hostname of an adapter", ASKED, OTHER),
        _Send("sync", ASKED, pool={"server_hostname": OTHER}),
    ),
    Row(
        *("niquests, async", "server_hostname of an adapter", ASKED, OTHER),
        _Send("async", ASKED, pool={"server_hostname": OTHER}),
    ),
    Row(
        *("niquests", "assert_hostname of an adapter at an IP address", ASKED, IP),
        _Send("sync", IP, pool={"assert_hostname": ASKED}),
        taken=False,
    ),
    Row(
        *("niquests", "assert_hostname=False of an adapter", ASKED, ASKED),
        _Send("sync", ASKED, pool={"assert_hostname": False}),
        taken=False,
    ),
    Row("niquests", "faß.test", FASZ, FASZ, _Send("sync", "faß.test")),
    Row("niquests", "bücher.test", BUECHER, BUECHER, _Send("sync", "bücher.test")),
    Row("niquests", "capitals", ASKED, ASKED, _Send("sync", ASKED.upper())),
]
