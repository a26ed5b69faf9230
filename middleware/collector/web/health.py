"""Health checks: the process is alive; a report would be stored now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dynpin.errors import StoreError

from .query import AnyQuery
from .routes import CheckedRoute, Operation

__all__ = ["Readiness", "health_routes"]

# All requests within a second share a probe. The longest waits for a lock, and for the disk (seconds).
_SHARED_S = 1.0
_PATIENCE_S = 2.0
_DISK_S = 5.0


class Readiness:
    """Tells whether a report would be stored now, by a write to the storage, at most once a second.

    Args:
        probe: writes something durably within so many seconds, or raises StoreError.
        refused: why the last reports were not stored; an empty text if they were stored. A full disk may have space
            for the probe's row, and none for a report.
        monotonic: a clock in seconds that never goes back.
    """

    def __init__(
        self,
        probe: Callable[[float], None],
        refused: Callable[[], str] = str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe = probe
        self._refused = refused
        self._monotonic = monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: asyncio.Task[str] | None = None
        self._asked_at = 0.0

    async def fault(self) -> str:
        """Why reports cannot be stored; an empty text if they can."""
        loop = asyncio.get_running_loop()
        asked = self._asked
        if asked is None or loop is not self._loop or (asked.done() and not self._is_fresh()):
            asked = self._asked = loop.create_task(self._ask())
            self._loop, self._asked_at = loop, self._monotonic()
        try:
            # A client that disconnects must not cancel a probe that others wait for.
            return await asyncio.wait_for(asyncio.shield(asked), _DISK_S)
        except TimeoutError:
            return f"the disk of the report storage has not answered for {_DISK_S:.0f} seconds"

    def _is_fresh(self) -> bool:
        return self._monotonic() - self._asked_at < _SHARED_S

    async def _ask(self) -> str:
        try:
            await run_in_threadpool(self._probe, _PATIENCE_S)
        except StoreError as error:
            return str(error)
        return self._refused()


def health_routes(readiness: Readiness) -> list[CheckedRoute]:
    """The two routes. Anybody may ask, so they say as little as possible."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if await readiness.fault():
            text = "reports cannot be stored now; the pages and the collector's log say why\n"
            return PlainTextResponse(text, status_code=503, headers={"retry-after": "60"})
        return PlainTextResponse("ready\n")

    return [
        CheckedRoute(
            "/healthz",
            healthz,
            query=AnyQuery,
            operation=Operation(
                summary="Whether the process is alive; this reads no disk.",
                texts=("text/plain",),
                failures={},
                is_public=True,
            ),
        ),
        CheckedRoute(
            "/readyz",
            readyz,
            query=AnyQuery,
            operation=Operation(
                summary="Whether a report would be stored now.",
                texts=("text/plain",),
                failures={503: "It would not be stored; the pages and the log say why."},
                silent=(503,),
                is_public=True,
            ),
        ),
    ]
