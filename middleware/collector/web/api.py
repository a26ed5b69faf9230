"""The API: reports and groups as JSON, with the filters of the pages; exports and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from ..service import Service
from ..storage import STATES, Filter, Term
from .access import Access, Viewer
from .answers import (
    AlertChannels,
    ASCIIJSONResponse,
    Audit,
    Decided,
    Decision,
    Group,
    Groups,
    Report,
    Reports,
    failure,
)
from .export import FORMATS, Exported, Format, everything, written
from .metrics import exposition
from .openapi import openapi_document
from .query import Filters, GroupKey, Limited, Listing, Query
from .routes import CheckedRoute, Operation, bounded_body
from .sites import site_routes

__all__ = ["api_routes"]

_MAX_BODY = 4096


class _OneGroup(Query):
    key: GroupKey = Field(description="The group.")


class _Export(Query):
    what: Exported = Field(description="What to export.")
    form: Format = Field(description="The format.")


def api_routes(service: Service, access: Access, others: Iterable[CheckedRoute] = ()) -> list[CheckedRoute]:
    """The routes for programs. `others` are further routes for the OpenAPI document."""
    storage = service.storage

    def reports(request: Request) -> Response:
        asked: Limited = request.state.asked
        page = storage.reports(_wanted(request, service), cursor=_cursor(request), limit=asked.limit)
        return ASCIIJSONResponse(Reports.model_validate(page))

    def groups(request: Request) -> Response:
        asked: Limited = request.state.asked
        page = storage.groups(_wanted(request, service), cursor=_cursor(request), limit=asked.limit)
        hosts = _sites(request.state.viewer)
        return ASCIIJSONResponse(
            Groups.model_validate({"entries": page.entries, "hosts": hosts, "cursor": page.cursor})
        )

    def export(request: Request) -> Response:
        try:
            asked = _Export.model_validate(request.path_params)
        except ValidationError:
            message = f"there is no such export; reports and groups can be exported as {', '.join(FORMATS)}"
            return failure(404, "not-found", message)
        wanted = _wanted(request, service)
        rows: Iterator[Group] | Iterator[Report]
        if asked.what == "groups":
            groups = everything(lambda at, n: storage.groups(wanted, cursor=at, limit=n))
            rows = map(Group.model_validate, groups)
        else:
            reports = everything(lambda at, n: storage.reports(wanted, cursor=at, limit=n))
            rows = map(Report.model_validate, reports)
        headers = {"content-disposition": f'attachment; filename="dynpin-{asked.what}.{asked.form}"'}
        pieces = written((row.model_dump(mode="json") for row in rows), asked.form)
        # Read the first entry now, so that an error comes before the answer has begun.
        begun = [next(pieces, "")]
        return StreamingResponse(chain(begun, pieces), media_type=FORMATS[asked.form], headers=headers)

    def audit(request: Request) -> Response:
        asked: Limited = request.state.asked
        return ASCIIJSONResponse(Audit.model_validate({"entries": storage.audit(limit=asked.limit)}))

    def alerts(request: Request) -> Response:
        return ASCIIJSONResponse(AlertChannels.model_validate({"entries": storage.channels()}))

    async def state(request: Request) -> Response:
        # A form of another site cannot send this type without a CORS preflight, which is refused.
        is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        try:
            body = await bounded_body(request, _MAX_BODY) if is_json else None
            decision = Decision.model_validate_json(body or b"")
        except ValidationError:
            message = f'send {{"state": …}} as application/json, with one of {", ".join(STATES)} and nothing else'
            return failure(400, "bad-state", message)
        key = request.path_params["key"]
        viewer: Viewer = request.state.viewer
        if viewer.sites and "read" not in viewer.scopes:
            # A token may decide only about groups that it may read. For others the answer is 404.
            group = await run_in_threadpool(storage.group, key)
            if group is None or not viewer.has_site(group.host):
                return failure(404, "not-found", "there is no such group")
        by = access.entry(request, viewer.name, decision.state, key)
        is_set = await run_in_threadpool(storage.set_state, key, decision.state, by)
        group = await run_in_threadpool(storage.group, key)
        if not is_set or group is None:
            return failure(404, "not-found", "there is no such group")
        if not viewer.sites and "read" not in viewer.scopes:
            return ASCIIJSONResponse(Decided(group=key, state=decision.state))
        return ASCIIJSONResponse(Group.model_validate(group))

    def document(request: Request) -> Response:
        return ASCIIJSONResponse(openapi_document(request.scope.get("root_path", ""), [*routes, *others]))

    def metrics(request: Request) -> Response:
        service.flush()
        return PlainTextResponse(exposition(service), media_type="text/plain; version=0.0.4")

    routes = [
        CheckedRoute(
            "/api/reports",
            reports,
            query=Listing,
            operation=Operation(summary="Reports, newest first.", answer=Reports, failures=Operation.failing(400)),
        ),
        CheckedRoute(
            "/api/groups",
            groups,
            query=Listing,
            operation=Operation(
                summary="Groups of reports, the last seen first.", answer=Groups, failures=Operation.failing(400)
            ),
        ),
        CheckedRoute(
            "/api/groups/{key}/state",
            state,
            method="POST",
            operation=Operation(
                summary="Resolve, mute or reopen a group.",
                answer=Group | Decided,
                path=_OneGroup,
                body=Decision,
                failures=Operation.failing(400, 404),
            ),
        ),
        *site_routes(service, access),
        CheckedRoute(
            "/api/audit",
            audit,
            query=Limited,
            operation=Operation(
                summary="What people and programs did, or tried; newest first.",
                answer=Audit,
                failures=Operation.failing(400),
            ),
        ),
        CheckedRoute(
            "/api/alerts",
            alerts,
            operation=Operation(
                summary="The channels of alerts: the last message of each, and how many groups wait for it.",
                answer=AlertChannels,
                failures=Operation.failing(400),
            ),
        ),
        CheckedRoute(
            "/api/openapi.json",
            document,
            operation=Operation(summary="This document.", answer=dict[str, object], failures=Operation.failing(400)),
        ),
        CheckedRoute(
            "/export/{what}.{form}",
            export,
            query=Filters,
            operation=Operation(
                summary="Everything that matches a filter, streamed.",
                answer=list[Report] | list[Group],
                texts=tuple(text.partition(";")[0] for form, text in FORMATS.items() if form != "json"),
                path=_Export,
                failures=Operation.failing(400, 404),
            ),
        ),
        CheckedRoute(
            "/metrics",
            metrics,
            operation=Operation(
                summary="Metrics for Prometheus.", texts=("text/plain",), failures=Operation.failing(400)
            ),
        ),
    ]
    return routes


def _wanted(request: Request, service: Service) -> Filter:
    wanted = Filter.parse(request.query_params.multi_items(), service.clock())
    for site in _sites(request.state.viewer):
        wanted = wanted.with_term(Term("site", site))
    return wanted


def _sites(viewer: Viewer) -> tuple[str, ...]:
    """The hosts that somebody may read about; empty if they may read everything."""
    return () if "read" in viewer.scopes else viewer.sites


def _cursor(request: Request) -> str | None:
    return request.query_params.get("cursor") or None
