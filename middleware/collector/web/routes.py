"""Routes that check the query string first, with their description for OpenAPI."""

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
    400: "A filter, a limit, a cursor or the body cannot be read.",
    401: "The request has no valid credentials.",
    403: "The token lacks the scope, it was sent over http, or nobody may read yet.",
    404: "There is no such thing here.",
    429: "Too many wrong passwords; Retry-After has the seconds to wait.",
    503: "The storage cannot be used; the message names the file and the cause.",
}
_ALWAYS = (401, 403, 429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation of the API: its parameters, its body and its answers. Each shape is a pydantic type.

    Attributes:
        summary: what it does.
        answer: the JSON of the answer with status 200; None if there is none.
        texts: media types of other answers with status 200.
        path: the parameters in the path.
        body: the JSON of the request's body; None if there is no body.
        media_types: the media types that the body may have.
        successes: other statuses of success, and their meaning; 200 has `answer` and `texts`.
        failures: statuses of failure, and their meaning. Their bodies are of :class:`.answers.Error`.
        silent: the failures without a body, or with a plain text.
        is_public: whether it needs no credentials.
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
        """The failures of each operation that needs credentials and the storage, and the given ones."""
        return {status: FAILURES[status] for status in sorted({*_ALWAYS, *more})}


class CheckedRoute(Route):
    """A route for one method. It accepts no other names in its query string.

    Args:
        path: the path.
        endpoint: the handler; ``request.state.asked`` has the query as its model.
        query: the model of its query string.
        operation: the description for OpenAPI; None for a page.
        method: the HTTP method.
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
        """Answer; raise :class:`.BadFilter` if the query string cannot be read."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        scope["state"]["asked"] = read_query(self.query, pairs, may_be_empty=self._may_be_empty)
        await super().handle(scope, receive, send)


async def bounded_body(request: Request, most: int) -> bytes | None:
    """The body of a request; None if it has more than `most` bytes. The rest is not read then."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            return None
    return bytes(body)
