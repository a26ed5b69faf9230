"""dynpin's own report collector as a server in a story: the reports it received, and its verdict."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Self, cast

import httpx
import uvicorn

from dynpin.middleware.collector import collector

__all__ = ["Collector"]

# In seconds, on a busy machine: the collector's worker is a process of its own.
_JUDGED_WITHIN = 60.0


class Collector:
    """The collector on a free port of 127.0.0.1, over plain HTTP; a context manager.

    Args:
        folder: where it keeps its database.
        token: the token of the sites that report to it.

    Attributes:
        port: where it listens.
    """

    def __init__(self, folder: Path, token: str) -> None:
        app = collector(folder / "reports.sqlite", tokens=[token], open_access=True)
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            if not self._thread.is_alive():
                raise RuntimeError("uvicorn did not start")
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    def reports(self) -> list[dict[str, Any]]:
        """The reports that it has, as they were sent (RFC 7469 §3)."""
        return [entry["report"] for entry in self._get("reports")]

    def verdict(self) -> dict[str, Any] | None:
        """Its verdict on its only group of reports; None if there is no group, or no verdict within a minute."""
        end = time.monotonic() + _JUDGED_WITHIN
        while groups := self._get("groups"):
            diagnosis = cast("dict[str, Any] | None", groups[0]["diagnosis"])
            if diagnosis is not None or time.monotonic() > end:
                return diagnosis
            time.sleep(0.05)
        return None

    def _get(self, what: str) -> list[dict[str, Any]]:
        with httpx.Client(trust_env=False) as client:
            found: list[dict[str, Any]] = client.get(f"http://127.0.0.1:{self.port}/api/{what}").json()["entries"]
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.should_exit = True
        self._thread.join()
