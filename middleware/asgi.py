"""The ASGI middleware: Public-Key-Pins on every https response (RFC 7469 §2.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dynpin.errors import PolicyError
from dynpin.middleware.policy import Policy

__all__ = ["PublicKeyPinsMiddleware"]

# ASGI's own types: messages and scopes hold whatever the specification puts in them.
_Message = MutableMapping[str, Any]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class PublicKeyPinsMiddleware:
    """Sends the header of a policy on every https response of an ASGI app, errors and streams too.

    Wrapped around the whole app it covers every response. Under Starlette's ``add_middleware`` the 500 for an
    unhandled exception is sent from further outside, and goes without.

    Args:
        app: the application.
        policy: what to pin; or else the keywords of :class:`Policy`.
        report_only: a second policy, in mode ``"report-only"``, sent beside the first (§2.3.2): the way to try out the
            next set of pins.
        policy_options: the keywords of :class:`Policy`, where no policy is given.

    A :class:`~dynpin.PolicyError` of the keywords is held until the server starts: Starlette builds its middleware
    lazily, where an exception would be swallowed. Then the server's startup fails, or the first request does.
    """

    def __init__(
        self,
        app: _App,
        policy: Policy | None = None,
        *,
        report_only: Policy | None = None,
        **policy_options: Any,  # noqa: ANN401 - those of Policy
    ) -> None:
        self.app = app
        self.error: PolicyError | None = None
        self.policies: tuple[Policy, ...] = ()
        try:
            self.policies = policies(policy, report_only, policy_options)
        except PolicyError as error:
            self.error = error

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one ASGI scope; all but https requests pass untouched."""
        if self.error is not None:
            await _refuse(self.error, scope, receive, send)
        # RFC 7469 §2.2.2: not over non-secure transport. The scheme is the server's word, after its trusted proxies.
        elif scope["type"] == "http" and scope.get("scheme") == "https":
            await self.app(scope, receive, self._sending(send))
        else:
            await self.app(scope, receive, send)

    def _sending(self, send: _Send) -> _Send:
        async def send_with_pins(message: _Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
                # What the application has set itself stands: the field is never doubled (§2.2.1).
                present = {name.lower() for name, _ in headers}
                fields = [policy.field for policy in self.policies]
                message["headers"] = headers + [field for field in fields if field and field[0] not in present]
            await send(message)

        return send_with_pins


def policies(policy: Policy | None, report_only: Policy | None, options: dict[str, Any]) -> tuple[Policy, ...]:
    """The policies that a middleware was given, as objects or as keywords.

    Raises:
        PolicyError: where both or neither are given, or the two policies are not one of each kind.
    """
    if policy is not None and options:
        raise PolicyError(f"give a policy or its keywords, not both: {', '.join(options)}")
    if policy is None and (options or report_only is None):
        try:
            policy = Policy(**options)
        except TypeError as error:
            raise PolicyError(f"the keywords make no policy: {error}") from None
    if report_only is not None and report_only.mode != "report-only":
        raise PolicyError(f'report_only= takes a policy of mode="report-only", not {report_only.mode!r}')
    if report_only is not None and policy is not None and policy.mode == "report-only":
        raise PolicyError("both policies are report-only: a response carries one such field at most (RFC 7469 §2.2.1)")
    return tuple(each for each in (policy, report_only) if each is not None)


async def _refuse(error: PolicyError, scope: _Scope, receive: _Receive, send: _Send) -> None:
    # uvicorn's default lifespan swallows an exception and serves on; this message is what stops it.
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    raise error
