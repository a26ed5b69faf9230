"""What programs read: reports and groups as JSON, filtered as on the pages; exports, metrics, health."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TypeVar, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from dynpin.report import rfc3339

from ..service import Service
from ..storage import STATES, BadFilter, Filter, Group, Page, StoredReport, Term
from ..stored_json import kept
from .access import Access, Viewer
from .answers import ASCIIJSONResponse
from .audit import audit_object
from .export import FORMATS, everything, written
from .metrics import exposition
from .openapi import openapi_document
from .sites import site_routes
from .wanted import wanted_of

__all__ = ["api_routes", "group_object", "report_object"]

_MAX_LIMIT, _MAX_BODY = 500, 4096
Entry = TypeVar("Entry")


def api_routes(service: Service, access: Access) -> list[Route]:
    """The routes for programs."""

    def reports(request: Request) -> Response:
        return _page(request, service, service.storage.reports, report_object)

    def groups(request: Request) -> Response:
        return _page(request, service, service.storage.groups, group_object)

    def export(request: Request) -> Response:
        what, form = request.path_params["what"], request.path_params["form"]
        if what not in ("groups", "reports") or form not in FORMATS:
            message = f"there is no such export; there are reports and groups as {', '.join(FORMATS)}"
            return ASCIIJSONResponse({"error": "not-found", "message": message}, status_code=404)
        wanted = _wanted(request, service)
        if what == "groups":
            rows = map(group_object, everything(lambda at, n: service.storage.groups(wanted, cursor=at, limit=n)))
        else:
            rows = map(report_object, everything(lambda at, n: service.storage.reports(wanted, cursor=at, limit=n)))
        headers = {"content-disposition": f'attachment; filename="dynpin-{what}.{form}"'}
        pieces = written(rows, form)
        # What cannot be read is found out before the answer begins.
        begun = [next(pieces, "")]
        return StreamingResponse(chain(begun, pieces), media_type=FORMATS[form], headers=headers)

    def audit(request: Request) -> Response:
        for name in request.query_params:
            if name != "limit":
                raise BadFilter(f"{name[:40]!r} is no filter; the audit has limit alone")
        entries = service.storage.audit(limit=_limit(request))
        return ASCIIJSONResponse({"entries": [audit_object(entry) for entry in entries]})

    async def state(request: Request) -> Response:
        # No other site's form can send this type without asking first (CORS), and it is not let.
        is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        wanted = kept((await _small(request)).decode("utf-8", "replace")) if is_json else None
        members = cast("dict[str, object]", wanted) if isinstance(wanted, dict) else {}
        state = members.get("state")
        if not isinstance(state, str) or state not in STATES or len(members) > 1:
            message = f'send {{"state": …}} as application/json, with one of {", ".join(STATES)} and nothing else'
            return ASCIIJSONResponse({"error": "bad-state", "message": message}, status_code=400)
        key, viewer = request.path_params["key"], request.state.viewer
        by = access.entry(request, viewer.name, state, key)
        if not await run_in_threadpool(service.storage.set_state, key, state, by):
            return ASCIIJSONResponse({"error": "not-found", "message": "there is no such group"}, status_code=404)
        group = await run_in_threadpool(service.storage.group, key)
        return ASCIIJSONResponse({"group": key, "state": state} if group is None else group_object(group))

    def described(request: Request) -> Response:
        return ASCIIJSONResponse(openapi_document(request.scope.get("root_path", ""), max_limit=_MAX_LIMIT))

    def metrics(request: Request) -> Response:
        service.flush()
        return PlainTextResponse(exposition(service), media_type="text/plain; version=0.0.4")

    return [
        Route("/api/reports", reports),
        Route("/api/groups", groups),
        Route("/api/groups/{key}/state", state, methods=["POST"]),
        *site_routes(service, access),
        Route("/api/audit", audit),
        Route("/api/openapi.json", described),
        Route("/export/{what}.{form}", export),
        Route("/metrics", metrics),
    ]


def _page(
    request: Request,
    service: Service,
    select: Callable[..., Page[Entry]],
    describe: Callable[[Entry], dict[str, object]],
) -> Response:
    page = select(
        _wanted(request, service, "cursor", "limit"), cursor=request.query_params.get("cursor"), limit=_limit(request)
    )
    return ASCIIJSONResponse({"entries": [describe(entry) for entry in page.entries], "cursor": page.cursor})


def _wanted(request: Request, service: Service, *others: str) -> Filter:
    wanted = wanted_of(request.query_params.multi_items(), service.clock(), *others)
    viewer: Viewer = request.state.viewer
    for site in () if "read" in viewer.scopes else viewer.sites:
        wanted = wanted.with_term(Term("site", site))
    return wanted


async def _small(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            return b""
    return body


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", "50")
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= _MAX_LIMIT):
        raise BadFilter(f"limit is a number from 1 to {_MAX_LIMIT}")
    return int(text)


def group_object(group: Group) -> dict[str, object]:
    """A group as JSON."""
    return {
        "group": group.key,
        "host": group.host,
        "noted-host": group.noted_host or None,
        "port": group.port,
        "mode": group.mode,
        "token": group.token,
        "state": group.state,
        "reports": group.reports,
        "first-seen": rfc3339(group.first_seen),
        "last-seen": rfc3339(group.last_seen),
        "known-pins": list(group.known_pins),
        "validated-pins": list(group.validated_pins),
        "issuer": group.issuer,
        "verdict": group.verdict,
        "severity": group.severity,
        "diagnosis": kept(group.diagnosis),
    }


def report_object(stored: StoredReport) -> dict[str, object]:
    """A report as JSON; ``report`` is the body as it came, null once its sample was pruned."""
    return {
        "id": stored.id,
        "group": stored.group.key,
        "received-at": rfc3339(stored.received_at),
        "host": stored.group.host,
        "noted-host": stored.group.noted_host or None,
        "port": stored.group.port,
        "mode": stored.group.mode,
        "verdict": stored.group.verdict,
        "token": stored.token,
        "source": stored.source or None,
        "user-agent": stored.user_agent or None,
        "flags": list(stored.flags),
        "report": kept(stored.body),
    }
