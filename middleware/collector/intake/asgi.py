"""The intake as an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from dynpin.errors import StoreError

from ..proxies import TrustedProxies
from .intake import Admission, Answer, Intake

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["ASGIIntake"]

# Close the connection: the rest of the body may be long, or never come.
_BODY_UNREAD = (408, 413)


class ASGIIntake:
    """An ASGI app that takes violation reports at ``/r/<token>/<mode>``, without a router."""

    def __init__(self, intake: Intake, proxies: TrustedProxies) -> None:
        self._intake = intake
        self._proxies = proxies
        self._waiting: _Waiting | None = None
        self._reading: asyncio.Task[None] | None = None

    async def answer(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        """Answer one request when its report is on the disk; `path` begins with ``/r/``."""
        if not self._intake.knows_tokens():
            await self._read_tokens()
        peer, header = scope.get("client"), partial(_header, scope["headers"])
        client = self._proxies.client(peer[0] if peer else None, partial(_fields, scope["headers"], b"x-forwarded-for"))
        admission = self._intake.admit(scope["method"], path, client, header)
        answer = admission if isinstance(admission, Answer) else await self._take(admission, receive)
        headers = answer.raw_headers
        if answer.status in _BODY_UNREAD and scope.get("http_version", "1.1").startswith("1"):
            headers = [*headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})

    async def _read_tokens(self) -> None:
        """Read the tokens on a thread, once for all requests of this event loop that wait for them."""
        reading = self._reading
        if reading is None or reading.done() or reading.get_loop() is not asyncio.get_running_loop():
            reading = self._reading = asyncio.create_task(asyncio.to_thread(self._intake.read_tokens))
        # A sender that disconnects must not cancel a read that others wait for.
        await asyncio.shield(reading)

    async def _until(self, stored: Future[None]) -> None:
        """Wait until a batch is on the disk, together with the batch's other requests of this event loop."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting
        if waiting is None or waiting.stored is not stored or waiting.loop is not loop:
            waiting = self._waiting = _Waiting(stored, loop)
        # Each request has its own future, so that a sender that disconnects cancels nothing for others.
        waiter = loop.create_future()
        waiting.requests.append(waiter)
        await waiter

    async def _take(self, admission: Admission, receive: Receive) -> Answer:
        intake = self._intake
        try:
            async with asyncio.timeout(intake.limits.body_seconds):
                body = await _read(receive, intake.limits.body)
        except TimeoutError:
            return intake.too_slow(admission)
        except ConnectionError:
            return intake.gone(admission)
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
    """The requests of one event loop that wait for one batch. The loop wakes once for all of them."""

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
    """The body; None as soon as it is longer than the limit. Raises ConnectionError if the sender disconnects."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        part: bytes = message.get("body", b"")
        length += len(part)
        if length > limit:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _header(headers: Iterable[tuple[bytes, bytes]], name: str) -> str:
    """The first header of this name. ASGI gives names in lower case."""
    wanted = name.encode("latin-1")
    for key, value in headers:
        if key == wanted:
            return value.decode("latin-1")
    return ""


def _fields(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    """All headers of this name, joined."""
    return ",".join(value.decode("latin-1") for name, value in headers if name == wanted)
