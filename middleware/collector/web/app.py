"""The pages and the API, as one ASGI app."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from dynpin.errors import StoreError

from ..service import Service
from ..storage import BadFilter
from .access import Access
from .answers import failure
from .api import api_routes
from .gate import Gate, is_for_programs
from .health import Readiness, health_routes
from .pages import page_routes

__all__ = ["web_app"]


def web_app(service: Service, access: Access, *, has_pages: bool = True, public_url: str = "") -> ASGIApp:
    """The app of everything except the intake. It closes the service at the end of the server's lifespan.

    Without `has_pages` it serves only the health checks.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        service.close()

    routes, pages = page_routes(service, access, public_url)
    health = health_routes(Readiness(service.storage.probe, service.outage.fault))

    def bad_filter(request: Request, error: Exception) -> Response:
        if is_for_programs(request.scope):
            return failure(400, "bad-filter", str(error))
        return pages.say(request, 400, "This filter cannot be read", f"{error}.")

    def no_page(request: Request, error: Exception) -> Response:
        if is_for_programs(request.scope):
            return failure(404, "not-found", "there is nothing here; /api/openapi.json has all addresses")
        return pages.not_found(request)

    def no_storage(request: Request, error: Exception) -> Response:
        if is_for_programs(request.scope):
            return failure(503, "not-stored", str(error), {"retry-after": "60"})
        return pages.no_storage(request, error)

    def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # the client has gone

    behind = Starlette(
        routes=[*health, *api_routes(service, access, health), *routes] if has_pages else health,
        lifespan=lifespan,
        exception_handlers={BadFilter: bad_filter, ClientDisconnect: gone, StoreError: no_storage, 404: no_page},
    )
    # It would redirect to the name in the Host header, which the client can forge.
    behind.router.redirect_slashes = False
    return Gate(behind, access, pages.say, public_url)
