"""The collector as an ASGI app: the intake under ``/r/``, and what people and programs read behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import Future
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dynpin.errors import StoreError
from dynpin.middleware.collector.access import Access
from dynpin.middleware.collector.api import api_routes
from dynpin.middleware.collector.desk import Desk
from dynpin.middleware.collector.filters import BadFilter
from dynpin.middleware.collector.guard import Guard, is_for_programs, path_within
from dynpin.middleware.collector.intake import Admission, Answer
from dynpin.middleware.collector.pages import page_routes

__all__ = ["Collector", "build"]


class Collector:
    """An ASGI app that takes violation reports and shows them; see :func:`dynpin.middleware.collector.collector`."""

    def __init__(self, desk: Desk, behind: ASGIApp) -> None:
        self.desk = desk
        self._behind = behind
        self._waiting: _Waiting | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: a report without a detour, everything else through Starlette's router."""
        if scope["type"] == "http":
            path = path_within(scope)
            if path.startswith("/r/"):
                client, header = scope.get("client"), partial(_header, scope["headers"])
                admission = self.desk.intake.admit(scope["method"], path, client[0] if client else None, header)
                answer = admission if isinstance(admission, Answer) else await self._take(admission, receive)
                await send({"type": "http.response.start", "status": answer.status, "headers": answer.raw_headers})
                await send({"type": "http.response.body", "body": answer.content})
                return
        await self._behind(scope, receive, send)

    def close(self) -> None:
        """Store what waits and let go of the file; called at the end of the server's lifespan where there is one."""
        self.desk.close()

    async def _until(self, stored: Future[None]) -> None:
        """Wait until a batch is on the disk, together with the other requests of the batch on this event loop."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting
        if waiting is None or waiting.stored is not stored or waiting.loop is not loop:
            waiting = self._waiting = _Waiting(stored, loop)
        # Each waits by itself: a sender that hangs up cancels nothing that it shares with others.
        waiter = loop.create_future()
        waiting.requests.append(waiter)
        await waiter

    async def _take(self, admission: Admission, receive: Receive) -> Answer:
        intake = self.desk.intake
        body = await _read(receive, intake.limits.body)
        if body is None:
            return intake.too_large(admission)
        taken = intake.take(admission, body)
        if taken.stored is not None:
            try:
                await self._until(taken.stored)
            except StoreError as error:
                return intake.overloaded(admission, len(taken.arrivals), error)
        return taken.answer


class _Waiting:
    """The requests of one event loop that wait for one batch: however many, the loop is woken once."""

    def __init__(self, stored: Future[None], loop: asyncio.AbstractEventLoop) -> None:
        self.stored = stored
        self.loop = loop
        self.requests: list[asyncio.Future[None]] = []
        stored.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))

    def _release(self) -> None:
        error = self.stored.exception()
        for request in self.requests:
            if request.done():
                continue
            if error is None:
                request.set_result(None)
            else:
                request.set_exception(error)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The body, or None as soon as it is longer than the limit."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        part: bytes = message.get("body", b"")
        length += len(part)
        if length > limit:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _header(headers: Iterable[tuple[bytes, bytes]], name: str) -> str:
    """The first header of this name; ASGI gives names in small letters."""
    wanted = name.encode("latin-1")
    for key, value in headers:
        if key == wanted:
            return value.decode("latin-1")
    return ""


def build(desk: Desk, access: Access) -> Collector:
    """The app around a desk."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        desk.close()

    routes, pages = page_routes(desk, access)

    def bad_filter(request: Request, error: Exception) -> Response:
        if is_for_programs(request.scope):
            return JSONResponse({"error": "bad-filter", "message": str(error)}, status_code=400)
        return pages.bad_filter(request, error)

    def no_page(request: Request, error: Exception) -> Response:
        if is_for_programs(request.scope):
            message = "there is nothing here; /api/openapi.json names what there is"
            return JSONResponse({"error": "not-found", "message": message}, status_code=404)
        return pages.not_found(request)

    def no_storage(request: Request, error: Exception) -> Response:
        if is_for_programs(request.scope):
            return JSONResponse({"error": "not-stored", "message": str(error)}, status_code=503)
        return PlainTextResponse(f"{error}\n", status_code=503)

    behind = Starlette(
        routes=[*api_routes(desk), *routes],
        lifespan=lifespan,
        exception_handlers={BadFilter: bad_filter, StoreError: no_storage, 404: no_page},
    )
    return Collector(desk, Guard(behind, access))
