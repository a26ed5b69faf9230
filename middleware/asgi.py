"""The ASGI middleware: the header of a policy on every https response (RFC 7469 §2.2)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Unpack

from dynpin.errors import PolicyError

from .behind_proxy import FIELDS, BehindProxy
from .policy import Policy, PolicyOptions, PolicySource, policies_to_send

__all__ = ["PublicKeyPinsMiddleware"]

logger = logging.getLogger("dynpin.middleware")

# The types of ASGI. Servers and extensions may add anything to a scope or a message, so Any.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FORWARDED = {name.encode(): name for name in FIELDS}
_FIX = "Make the server trust the proxy, such as uvicorn --proxy-headers --forwarded-allow-ips=ADDRESS"


class PublicKeyPinsMiddleware:
    """Sends the header of a policy on every https response of an ASGI app: also on errors, redirects, streams and HEAD.

    Wrapped around the app, it covers every response. Added with Starlette's ``add_middleware``, it misses one: the 500
    of an unhandled exception, which Starlette sends from outside of all middleware.

    If the application has set the field, its value is kept. Plain http, WebSocket and lifespan are not changed.

    Args:
        app: the application.
        policy: a :class:`~dynpin.middleware.Policy`, or the path of a ``dynpin.toml``; or use `options`.
        report_only: a second policy, of mode ``"report-only"``, sent in addition, to try out the next set of pins.
        options: the keywords of :class:`~dynpin.middleware.Policy`.

    Frameworks build their middleware after the server has started, and servers then ignore exceptions. So a
    :class:`~dynpin.PolicyError` is kept, and ends the server's startup (``lifespan.startup.failed``). If the server
    has no lifespan, every request raises it.
    """

    def __init__(
        self,
        app: App,
        policy: PolicySource | None = None,
        *,
        report_only: PolicySource | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        self.app = app
        self.policies: tuple[Policy, ...] = ()
        self._proxy = BehindProxy()
        try:
            self.policies = policies_to_send(policy, report_only, options)
        except PolicyError as error:
            logger.critical("The pinning policy is refused: %s", error)
            self.app = _refusal(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        # RFC 7469 §2.2.1, §2.2.2: only over TLS. If the server trusts its proxy, this is the client's scheme.
        if scope["type"] != "http" or scope.get("scheme") != "https":
            if scope["type"] == "http":
                fields = [
                    (_FORWARDED[name], value.decode("latin-1"))
                    for name, value in scope.get("headers", ())
                    if name in _FORWARDED
                ]
                self._proxy.see(fields, _FIX)
            await self.app(scope, receive, send)
            return
        policies = self.policies

        # This runs for every request, so it is one function. It is no coroutine, so that each message of a streamed
        # body costs one comparison.
        def send_with_pins(message: Message) -> Awaitable[None]:
            if message["type"] != "http.response.start":
                return send(message)
            # Copy: an application may send the same objects again, over plain http or after a rotation.
            message = dict(message)
            message["headers"] = headers = [*message.get("headers", ())]
            for policy in policies:
                field = policy.field
                if field is None:
                    continue
                name = field[0]
                size = len(name)
                for present, _ in headers:  # §2.2.1: exactly one of each
                    # Compare the length first, which is faster than lower().
                    if len(present) == size and present.lower() == name:
                        break
                else:
                    headers.append(field)
            return send(message)

        await self.app(scope, receive, send_with_pins)


def _refusal(error: PolicyError) -> App:
    """The app that replaces an application whose policy is refused."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise PolicyError(str(error)) from error
        await receive()
        await send({"type": "lifespan.startup.failed", "message": f"dynpin: {error}"})

    return refuse
