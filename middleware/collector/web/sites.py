"""The shared state of a site's nodes: read with GET, changed with PUT and If-Match (RFC 9110 §13.1.1)."""

from __future__ import annotations

import hashlib
import re

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dynpin.middleware.policy.shared import LONGEST_STATE, SiteDocument

from ..service import Service
from ..storage import SiteState
from .access import Access, Viewer
from .answers import Answer, ASCIIJSONResponse, Moment, failure
from .query import Query
from .routes import CheckedRoute, Operation, bounded_body

__all__ = ["site_routes"]

_NONE = '"0"'
_HOST = r"^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63}){0,10}$"


class _Site(Query):
    host: str = Field(pattern=_HOST, description="The site.")


class SharedBySite(Answer):
    """The state that the nodes of a site share, and who last changed it; version 0 if they share nothing yet."""

    host: str
    version: int
    state: SiteDocument | None
    changed_at: Moment | None
    changed_by: str | None


class _SiteRoute(CheckedRoute):
    """One method of the resource. The answer to an unknown method names all methods."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse the method."""
        if scope["method"] in ("GET", "HEAD", "PUT"):
            await super().handle(scope, receive, send)
        else:
            await Response(status_code=405, headers={"allow": "GET, HEAD, PUT"})(scope, receive, send)


def site_routes(service: Service, access: Access) -> list[CheckedRoute]:
    """The routes of the shared state."""

    async def read(request: Request) -> Response:
        host = _host(request)
        if isinstance(host, Response):
            return host
        now = await run_in_threadpool(service.storage.shared_time)
        kept = await run_in_threadpool(service.storage.site_state, host)
        wanted = request.headers.get("if-none-match", "")
        if wanted and _etag(kept) in _etags(wanted):
            return Response(status_code=304, headers=_fields(now, kept))
        return _found(now, host, kept)

    async def write(request: Request) -> Response:
        host = _host(request)
        if isinstance(host, Response):
            return host
        viewer: Viewer = request.state.viewer
        expected = request.headers.get("if-match", "")
        if not expected:
            message = "If-Match is missing; send the ETag that GET gave"
            return failure(428, "no-condition", message)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _bad("send the state as application/json")
        body = await bounded_body(request, LONGEST_STATE)
        try:
            document = None if body is None else SiteDocument.from_json(body)
        except ValueError as error:
            return _bad(f"this is not a state of a site: {error}")
        # Store it with all members, also those that the request left out.
        text = None if document is None else document.to_json()
        if document is None or text is None or len(text.encode()) > LONGEST_STATE:
            return failure(413, "too-long", f"the state of a site has at most {LONGEST_STATE} bytes")
        now = await run_in_threadpool(service.storage.shared_time)
        before = await run_in_threadpool(service.storage.site_state, host)
        if _etag(before) not in _etags(expected):
            return _other(now, before)
        version = 0 if before is None else before.version
        kept = await run_in_threadpool(
            lambda: service.storage.set_site_state(host, text, expected=version, by=viewer.name)
        )
        if kept is None:
            return _other(now, await run_in_threadpool(service.storage.site_state, host))
        changes = _changes(before, document)
        if changes:
            subject = f"{host}: {', '.join(changes)}"
            await run_in_threadpool(access.record, request, viewer.name, "site-state", subject[:200])
        return _found(now, host, kept)

    path = "/api/sites/{host}/state"
    conditions = {412: "Another node has changed the state in the meantime.", 413: "Too large.", 428: "No If-Match."}
    return [
        _SiteRoute(
            path,
            read,
            operation=Operation(
                summary="The state that the nodes of a site share, with its ETag. Needs scope site:HOST or read.",
                answer=SharedBySite,
                path=_Site,
                successes={200: "It.", 304: "If-None-Match has the ETag of the current state."},
                failures=Operation.failing(400, 404),
            ),
        ),
        _SiteRoute(
            path,
            write,
            method="PUT",
            operation=Operation(
                summary="Change the state, if If-Match has its current ETag. Needs a token of scope site:HOST.",
                answer=SharedBySite,
                path=_Site,
                body=SiteDocument,
                failures=Operation.failing(400, 404) | conditions,
            ),
        ),
    ]


def _host(request: Request) -> str | Response:
    """The site of the request, or a refusal. Scope read may read every site; site:HOST may read and change its site."""
    viewer: Viewer = request.state.viewer
    host: str = request.path_params["host"]
    if not re.fullmatch(_HOST, host):
        message = "there is no such site: it is named by its host, in lower case, such as shop.example.com"
        return failure(404, "not-found", message)
    if viewer.has_site(host) or (request.method != "PUT" and "read" in viewer.scopes):
        return host
    message = f"this needs a token of scope site:{host}; this one has {', '.join(sorted(viewer.scopes))}"
    return failure(403, "scope", message)


def _etag(kept: SiteState | None) -> str:
    # The ETag covers the text too, since another database may reach the same version.
    return _NONE if kept is None else f'"{kept.version}-{hashlib.sha256(kept.state.encode()).hexdigest()[:16]}"'


def _etags(field: str) -> set[str]:
    """The ETags of a condition. A proxy that compresses turns an ETag into a weak one."""
    return {each.strip().removeprefix("W/") for each in field.split(",")}


def _fields(now: float, kept: SiteState | None) -> dict[str, str]:
    # The nodes of a site share one clock, whichever node of the collector answers.
    return {"etag": _etag(kept), "dynpin-time": f"{now:.3f}"}


def _found(now: float, host: str, kept: SiteState | None) -> Response:
    found = SharedBySite.model_validate(
        {
            "host": host,
            "version": 0 if kept is None else kept.version,
            "state": None if kept is None else SiteDocument.from_json(kept.state),
            "changed_at": None if kept is None else kept.changed_at,
            "changed_by": None if kept is None else kept.changed_by,
        }
    )
    return ASCIIJSONResponse(found, headers=_fields(now, kept))


def _other(now: float, kept: SiteState | None) -> Response:
    message = "the state was changed in the meantime; read it again, then decide again"
    return failure(412, "changed", message, _fields(now, kept))


def _bad(message: str) -> Response:
    return failure(400, "bad-state", message)


def _changes(before: SiteState | None, after: SiteDocument) -> list[str]:
    """What has changed, except for the times of the last look at a node or the ramp."""
    was = SiteDocument() if before is None else SiteDocument.from_json(before.state)
    found = ["history"] if was.history != after.history else []
    ramps = [
        None if each.ramp is None else (each.ramp.token, each.ramp.sent, each.ramp.position.is_held)
        for each in (was, after)
    ]
    found += ["ramp"] if ramps[0] != ramps[1] else []
    for name in sorted({*was.nodes, *after.nodes}):
        one, other = was.nodes.get(name), after.nodes.get(name)
        if one is None or other is None or (one.header, one.chains) != (other.header, other.chains):
            found.append(f"node {name}")
        if other is not None and other.doubled and not (one is not None and one.doubled):
            found.append(f"two nodes use the name {name}")
    return found
