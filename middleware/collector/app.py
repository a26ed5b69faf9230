"""The collector as an ASGI app: the intake under ``/r/``, and what people and programs read behind it."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from .intake import ASGIIntake
from .service import Service
from .web import Access, path_within, web_app

__all__ = ["Collector"]


class Collector:
    """An ASGI app that takes violation reports and shows them; see :func:`dynpin.middleware.collector.collector`."""

    def __init__(self, service: Service, access: Access) -> None:
        self.service = service
        self._intake = ASGIIntake(service.intake)
        self._web = web_app(service, access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: a report without a detour, everything else through Starlette's router."""
        if scope["type"] == "http":
            path = path_within(scope)
            if path.startswith("/r/"):
                await self._intake.answer(scope, path, receive, send)
                return
        await self._web(scope, receive, send)

    def close(self) -> None:
        """Store what waits and let go of the file; called at the end of the server's lifespan where there is one."""
        self.service.close()
