"""The ASGI middleware: the header of a policy on every https response (RFC 7469 §2.2)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Unpack

from dynpin.errors import PolicyError
from dynpin.middleware.given import given_policies
from dynpin.middleware.policy import Policy, PolicyOptions

__all__ = ["PublicKeyPinsMiddleware"]

logger = logging.getLogger("dynpin.middleware")

# The types of ASGI: what else stands in a scope or a message is up to servers and extensions, hence Any.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PublicKeyPinsMiddleware:
    """Sends the header of a policy on every https response of an ASGI app: errors, redirects, streams and HEAD too.

    Wrapped around the app it covers every response. Under Starlette's ``add_middleware`` it works as well, but for one
    response: the 500 for an exception that nobody handles is Starlette's own, and is sent from further outside.

    A field that the application has set stands, and is not doubled. Plain http, WebSocket and lifespan pass untouched.

    Args:
        app: the application.
        policy: what to send; or give the keywords of :class:`~dynpin.middleware.Policy` right here.
        report_only: a policy of mode ``"report-only"`` to be sent beside it: the way to try out the next set of pins.
        options: the keywords of :class:`~dynpin.middleware.Policy`.

    Frameworks build their middleware when the server is up already, and servers then swallow what it raises. So a
    :class:`~dynpin.PolicyError` is held, and ends the server's startup (``lifespan.startup.failed``); where the server
    speaks no lifespan, every request raises it.
    """

    def __init__(
        self,
        app: App,
        policy: Policy | None = None,
        *,
        report_only: Policy | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        self.app = app
        self.policies: tuple[Policy, ...] = ()
        self.error: PolicyError | None = None
        try:
            self.policies = given_policies(policy, report_only, options)
        except PolicyError as error:
            logger.critical("The pinning policy is refused: %s", error)
            self.error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if self.error is not None:
            await self._refuse(scope, receive, send)
        # RFC 7469 §2.2.1, §2.2.2: over TLS alone. The scheme is as the client sees it, if the server trusts its proxy.
        elif scope["type"] == "http" and scope.get("scheme") == "https":
            policies = self.policies

            # No coroutine of its own: a streamed body costs one comparison for each of its messages.
            def send_with_pins(message: Message) -> Awaitable[None]:
                if message["type"] == "http.response.start":
                    message = _with_pins(message, policies)
                return send(message)

            await self.app(scope, receive, send_with_pins)
        else:
            await self.app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"dynpin: {self.error}"})
            return
        raise PolicyError(str(self.error)) from self.error


def _with_pins(message: Message, policies: tuple[Policy, ...]) -> Message:
    """The start of a response with the fields that it lacks; the application's own objects stay as they are."""
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    for policy in policies:
        field = policy.field
        if field is None:
            continue
        name = field[0]
        for present, _ in headers:  # §2.2.1: exactly one of each
            if present == name or present.lower() == name:
                break
        else:
            headers.append(field)
    return {**message, "headers": headers}
