"""Routes whose query strings are checked before anything else, and what OpenAPI tells of those for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .query import Query, read_query

__all__ = ["FAILURES", "CheckedRoute", "Operation", "bounded_body"]

FAILURES = {
    400: "What was sent cannot be read: a filter, a limit, a cursor or a body.",
    401: "Who asks has not signed in.",
    403: "Nobody may read yet, the token has not the scope, or it came over http.",
    404: "There is no such thing here.",
    429: "After too many wrong passwords; Retry-After says for how long.",
    503: "The storage cannot be used; the message names the file and the cause.",
}
_ALWAYS = (401, 403, 429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a program may ask for at a path, and what it is answered. Each shape is a type that pydantic describes.

    Attributes:
        summary: what it does.
        answer: the JSON of the answer with status 200; None where there is none.
        texts: media types of other answers with status 200.
        path: the parameters in the path.
        body: the JSON that is sent; None where nothing is.
        media_types: what a body may be sent as.
        successes: what other statuses of success mean; 200 has `answer` and `texts`.
        failures: what statuses of failure mean. Their bodies are of :class:`.answers.Error`.
        silent: the failures that have no body, or text.
        is_public: whether anybody may ask.
    """

    summary: str
    answer: Any = None
    texts: tuple[str, ...] = ()
    path: type[BaseModel] = Query
    body: Any = None
    media_types: tuple[str, ...] = ("application/json",)
    successes: Mapping[int, str] = field(default_factory=lambda: {200: "It."})
    failures: Mapping[int, str] = field(default_factory=lambda: {status: FAILURES[status] for status in _ALWAYS})
    silent: tuple[int, ...] = ()
    is_public: bool = False

    @staticmethod
    def failing(*more: int) -> dict[int, str]:
        """The failures of everything that needs a right and the storage, and more of them."""
        return {status: FAILURES[status] for status in sorted({*_ALWAYS, *more})}


class CheckedRoute(Route):
    """A route for one method that takes the names of its query string, and no other.

    Args:
        path: where it is.
        endpoint: answers; ``request.state.asked`` is the query as its model.
        query: the names that it has.
        operation: what OpenAPI tells of it; None for a page.
        method: of HTTP.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        query: type[Query] = Query,
        operation: Operation | None = None,
        method: str = "GET",
        may_be_empty: bool = False,
    ) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.query = query
        self.operation = operation
        self.method = method.lower()
        self._may_be_empty = may_be_empty

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, if the query string can be read; :class:`.BadFilter` otherwise."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        scope["state"]["asked"] = read_query(self.query, pairs, may_be_empty=self._may_be_empty)
        await super().handle(scope, receive, send)


async def bounded_body(request: Request, most: int) -> bytes | None:
    """The body of a request; None where it has more than `most` bytes, of which no more is read."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            return None
    return bytes(body)
