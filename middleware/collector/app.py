"""The collector as an ASGI app: the intake under ``/r/``, and the pages and the API."""

from __future__ import annotations

from typing import Literal

from starlette.types import Receive, Scope, Send

from .intake import ASGIIntake
from .proxies import TrustedProxies
from .service import Service
from .web import Access, path_within, web_app

__all__ = ["PARTS", "Collector", "Part"]


Part = Literal["intake", "worker", "web"]
PARTS: frozenset[Part] = frozenset({"intake", "worker", "web"})


class Collector:
    """An ASGI app that takes violation reports and shows them; see :func:`dynpin.middleware.collector.collector`."""

    def __init__(
        self,
        service: Service,
        access: Access,
        parts: frozenset[Part],
        proxies: TrustedProxies,
        public_url: str = "",
    ) -> None:
        self.service = service
        self._parts = parts
        self._proxies = proxies
        self._user_header = access.user_header
        self._intake = ASGIIntake(service.intake, proxies)
        self._web = web_app(service, access, has_pages="web" in parts, public_url=public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: a report directly, everything else through Starlette's router."""
        # The worker starts with the server's lifespan. A mounted app has no lifespan: then with the first request.
        self.service.begin()
        if scope["type"] == "http":
            path = path_within(scope)
            if path.startswith("/r/") and "intake" in self._parts:
                await self._intake.answer(scope, path, receive, send)
                return
            scope = self._proxies.believed(scope, self._user_header)
        await self._web(scope, receive, send)

    def close(self) -> None:
        """Store what waits and close the storage. If the server has a lifespan, it calls this at its end."""
        self.service.close()
