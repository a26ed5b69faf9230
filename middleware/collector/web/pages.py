"""The pages, where people read and decide. They have no script, and load nothing from other origins."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dynpin.counts import plural
from dynpin.errors import InvalidHeader
from dynpin.header import PublicKeyPins

from ..formatting import ago, count, when, without_controls
from ..service import Service
from ..storage import FIELDS, HOUR, MODES, Filter, Group, State, Term, seconds
from ..stored_json import ascii_json, kept_report
from ..triage import SEVERITIES, VERDICTS, Diagnosis, KnownPin
from ..worker import clock_jump
from .access import COOKIE, SESSION_S, Access, Refused, Viewer
from .audit import ACTIONS
from .chains import chain_levels
from .charts import axis, chart
from .gate import NO_STORAGE, path_within
from .query import CHOICES, Filters, NarrowedFilters, Narrowing, PagedFilters, Query, read_query
from .routes import CheckedRoute, bounded_body

__all__ = ["page_routes"]

_HERE = Path(__file__).parent
_PERIODS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
_STATES: dict[str, State] = {"mute": "muted", "resolve": "resolved", "reopen": "open"}
_MAX_FORM = 16_384
_ATTACKED_HOSTS = 8
# The example address, if the collector does not know its own.
_PLACE = "https://reports.example"


class Pages:
    """The pages of one collector."""

    def __init__(self, service: Service, access: Access, public_url: str) -> None:
        self.service = service
        self.public_url = public_url
        self.access = access

    # -- reading ------------------------------------------------------------------------------------------------

    def overview(self, request: Request) -> Response:
        """Rates by mode, new groups, top hosts, verdicts, and the intake's answers."""
        wanted = self._filter(request)
        self.service.flush()  # count the latest answers of the intake too
        now = self.service.clock()
        wanted = wanted if wanted.since else Filter(wanted.terms, "7d", wanted.until)
        first = int(seconds(wanted.since, now) // HOUR)
        last = int((seconds(wanted.until, now) if wanted.until else now) // HOUR) + 1
        storage = self.service.storage
        verdicts = storage.tally(wanted, "verdict", 20)
        newest = storage.groups(wanted, limit=6, newest=True).entries
        time = axis(first, last)
        return self._page(
            request,
            "overview.html",
            wanted=wanted,
            chart=chart(storage.activity(wanted, time.first, time.last, time.step), time),
            hosts=storage.tally(wanted, "host", 8),
            verdicts=verdicts,
            lead=self._attacks(wanted),
            attacking=_attacking(wanted),
            attacks=sum(n for name, n, _ in verdicts if name in VERDICTS and VERDICTS[name].severity == "attack"),
            open_groups=sum(n for state, n, _ in storage.tally(wanted, "state") if state == "open"),
            newest=newest,
            outcomes=storage.outcomes(time.first),
            is_empty=not (newest or storage.groups(Filter(), limit=1, newest=True).entries),
            example=self._report_uris(request)[:1],
            outage=self.service.outage.fault(),
            failing=[note for note in storage.channels() if note.failing_since is not None],
        )

    def groups(self, request: Request) -> Response:
        """The groups that match a filter."""
        wanted = self._filter(request)
        page = self.service.storage.groups(wanted, cursor=request.query_params.get("cursor"), limit=30)
        return self._page(request, "groups.html", wanted=wanted, page=page)

    def reports(self, request: Request) -> Response:
        """The reports that match a filter."""
        wanted = self._filter(request)
        page = self.service.storage.reports(wanted, cursor=request.query_params.get("cursor"), limit=50)
        return self._page(request, "reports.html", wanted=wanted, page=page)

    def group(self, request: Request) -> Response:
        """One group: its verdict, chains, pins, timeline and senders."""
        group = self._group(request)
        if group is None:
            return self.not_found(request)
        storage = self.service.storage
        only = Filter((Term("group", group.key),))
        last = int(self.service.clock() // HOUR) + 1
        first = max(int(group.first_seen // HOUR) - 2, last - 90 * 24)
        time = axis(min(first, last - 24), last, 60)
        diagnosis = Diagnosis.read(group.diagnosis)
        return self._page(
            request,
            "group.html",
            group=group,
            diagnosis=diagnosis,
            known_pins=diagnosis.known_pins if diagnosis else [KnownPin(pin=pin, key=None) for pin in group.known_pins],
            levels=chain_levels(diagnosis) if diagnosis else None,
            chart=chart(storage.activity(only, time.first, time.last, time.step), time),
            agents=storage.agents(group)[:8],
            recent=storage.reports(only, limit=10).entries,
            history=storage.audit(group.key, 20),
        )

    def chain(self, request: Request) -> Response:
        """The certificates of a group as PEM: the served chain, or the validated one."""
        group = self._group(request)
        sample = self._sample(group)
        which = request.path_params["which"]
        report = kept_report(sample)
        if group is None or report is None or which not in ("served", "validated"):
            return self.not_found(request)
        pems = report.served_chain if which == "served" else report.validated_chain
        return PlainTextResponse(
            "".join(without_controls(pem if pem.endswith("\n") else pem + "\n") for pem in pems),
            headers=_attachment(f"{group.key}-{which}.pem"),
            media_type="application/x-pem-file",
        )

    def raw(self, request: Request) -> Response:
        """A report as it was sent."""
        sample = self._sample(self._group(request))
        if sample is None:
            return self.not_found(request)
        return Response(
            ascii_json(sample), media_type="application/json", headers=_attachment(f"{request.path_params['key']}.json")
        )

    def set_up(self, request: Request) -> Response:
        """The header lines to copy, for each token."""
        return self._page(request, "setup.html", policies=self._report_uris(request), has_place=bool(self.public_url))

    # -- deciding -----------------------------------------------------------------------------------------------

    async def decide(self, request: Request) -> Response:
        """Mute, resolve or reopen a group."""
        form = await _form(request)
        viewer: Viewer = request.state.viewer
        state = _STATES.get(form.get("do", ""))
        if not self.access.is_own_form(viewer, form.get("csrf", "")) or state is None:
            return self._not_own(request)
        key = request.path_params["key"]
        by = self.access.entry(request, viewer.name, state, key)
        if not await run_in_threadpool(self.service.storage.set_state, key, state, by):
            return self.not_found(request)
        return RedirectResponse(f"{_base(request)}/groups/{key}", status_code=303)

    async def narrow(self, request: Request) -> Response:
        """The filter form: add one condition, then go back to the page of the form."""
        asked: Narrowing = request.state.asked
        wanted, value = self._filter(request), asked.value.strip()[:300]
        if value:
            term = Term(asked.field, value, asked.is_ == "not")
            read_query(Filters, [term.pair])
            wanted = wanted.with_term(term)
        return RedirectResponse(f"{_base(request)}/{asked.page}?{wanted.query()}", status_code=303)

    async def sign_in(self, request: Request) -> Response:
        """Show the form, and take what it sends."""
        if request.method != "POST":
            return self._page(request, "signin.html", refused="")
        form = await _form(request)
        session = await self.access.sign_in(form.get("password", ""), form.get("name", "").strip()[:100], request)
        if isinstance(session, Refused):
            # Not 401, which is for the sign-in methods of HTTP itself (RFC 9110 §15.5.2).
            status = 403 if session.status == 401 else session.status
            page = self._page(request, "signin.html", status=status, refused=session.message)
            if session.wait:
                page.headers["retry-after"] = str(session.wait)
            return page
        answer = RedirectResponse(f"{_base(request)}/", status_code=303)
        answer.set_cookie(
            COOKIE, session, max_age=SESSION_S, path=f"{_base(request)}/", httponly=True, samesite="strict",
            secure=request.scope.get("scheme") == "https",
        )  # fmt: skip
        return answer

    def audit(self, request: Request) -> Response:
        """Who decided what, and who failed to sign in."""
        storage = self.service.storage
        entries, channels = storage.audit(limit=200), storage.channels()
        jump = clock_jump(storage)
        return self._page(request, "audit.html", entries=entries, channels=channels, jump=jump, actions=ACTIONS)

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        form = await _form(request)
        if not self.access.is_own_form(request.state.viewer, form.get("csrf", "")):
            return self._not_own(request)
        await run_in_threadpool(self.access.sign_out, request)
        answer = RedirectResponse(f"{_base(request)}/sign-in", status_code=303)
        answer.delete_cookie(COOKIE, path=f"{_base(request)}/")
        return answer

    # -- shared by the pages ------------------------------------------------------------------------------------

    def _page(self, request: Request, template: str, *, status: int = 200, **context: object) -> Response:
        page = _templates().get_template(template)
        html = page.render(
            now=self.service.clock(),
            base=_base(request),
            here=path_within(request.scope),
            viewer=request.state.viewer,
            has_password=self.access.has_password,
            FIELDS=FIELDS,
            CHOICES=CHOICES,
            PERIODS=_PERIODS,
            SEVERITIES=SEVERITIES,
            VERDICTS=VERDICTS,
            Term=Term,
            **context,
        )
        return HTMLResponse(html, status_code=status)

    def say(self, request: Request, status: int, title: str, text: str) -> Response:
        """A page with one sentence."""
        return self._page(request, "message.html", status=status, title=title, text=text)

    def _not_own(self, request: Request) -> Response:
        text = "The form came from another site, or it is too old. Nothing was changed."
        return self.say(request, 403, "This form is not valid", text)

    def not_found(self, request: Request) -> Response:
        """The page for an unknown address."""
        text = "The group may have been pruned, or the address is mistyped."
        return self.say(request, 404, "There is nothing here", text)

    def no_storage(self, request: Request, error: Exception) -> Response:
        """The page for a storage that cannot be used. It reads nothing from the storage."""
        text = str(error) if request.state.viewer else NO_STORAGE
        text = f"{text[:1].upper()}{text[1:]}"
        answer = self.say(request, 503, "The report storage cannot be used now", f"{text.removesuffix('.')}.")
        answer.headers["retry-after"] = "60"
        return answer

    def _filter(self, request: Request) -> Filter:
        return Filter.parse(request.query_params.multi_items(), self.service.clock())

    def _attacks(self, wanted: Filter) -> list[Group]:
        """The newest possible attack on each host, so that a flood about one host hides no other."""
        if any(term.field in ("verdict", "state") for term in wanted.terms):
            return []  # the filter asks for other verdicts
        storage = self.service.storage
        attacking = _attacking(wanted).with_term(Term("state", "open"))
        hosts = storage.tally(attacking, "host", _ATTACKED_HOSTS)
        others = tuple(term for term in attacking.terms if term.field != "host" or term.negated)
        newest = (
            storage.groups(Filter((*others, Term("host", host)), wanted.since, wanted.until), limit=1).entries
            for host, _, _ in hosts
        )
        return [group for entries in newest for group in entries]

    def _group(self, request: Request) -> Group | None:
        return self.service.storage.group(request.path_params["key"])

    def _sample(self, group: Group | None) -> str | None:
        if group is None:
            return None
        only = Filter((Term("group", group.key),))
        recent = self.service.storage.reports(only, limit=20).entries
        return next((stored.body for stored in recent if stored.body is not None), None)

    def _report_uris(self, request: Request) -> list[dict[str, object]]:
        # Never the Host header, which the client can forge.
        origin = self.public_url or f"{_PLACE}{_base(request)}"
        policies: list[dict[str, object]] = []
        for token in self.service.tokens():
            if token.revoked_at is None:
                # A policy needs two keys. With fewer, the page has placeholders.
                own = tuple(self.service.keys_of(token.token))
                pins = own if len(own) >= 2 else ()
                uris = {mode: f"{origin}/r/{token.token}/{mode}" for mode in MODES}
                try:
                    enforce = PublicKeyPins(pins, 30 * 86_400, report_uri=uris["enforce"])
                    trial = PublicKeyPins(pins, report_uri=uris["report-only"], report_only=True)
                except InvalidHeader:
                    continue  # this token cannot be in a header
                policies.append(
                    {"token": token, "uris": uris, "enforce": enforce, "trial": trial, "has_keys": bool(pins)}
                )
        return policies


def page_routes(service: Service, access: Access, public_url: str) -> tuple[list[BaseRoute], Pages]:
    """The routes of the pages, and the pages."""
    pages = Pages(service, access, public_url)

    # Not FileResponse: before Starlette 0.49.1 a long Range header keeps it busy for seconds (CVE-2025-62727).
    css = (_HERE / "static" / "style.css").read_bytes()

    def style(request: Request) -> Response:
        return Response(css, media_type="text/css", headers={"cache-control": "max-age=3600"})

    get: list[tuple[str, Callable[[Request], object], type[Query]]] = [
        ("/", pages.overview, Filters),
        ("/groups", pages.groups, PagedFilters),
        ("/reports", pages.reports, PagedFilters),
        ("/set-up", pages.set_up, Query),
        ("/audit", pages.audit, Query),
        ("/groups/{key}", pages.group, Query),
        ("/groups/{key}/{which}.pem", pages.chain, Query),
        ("/groups/{key}/report.json", pages.raw, Query),
    ]
    routes: list[BaseRoute] = [CheckedRoute(path, endpoint, query=query) for path, endpoint, query in get]
    routes += [
        CheckedRoute("/filter", pages.narrow, query=NarrowedFilters, may_be_empty=True),
        Route("/static/style.css", style),
        Route("/groups/{key}/decide", pages.decide, methods=["POST"]),
        Route("/sign-in", pages.sign_in, methods=["GET", "POST"]),
        Route("/sign-out", pages.sign_out, methods=["POST"]),
    ]
    return routes, pages


@cache
def _templates() -> Environment:
    """The templates, compiled once for all collectors of a process."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {"when": when, "count": count, "things": plural, "ago": _ago}
    made.filters.update(filters)
    return made


@pass_context
def _ago(context: Context, seconds: float) -> str:
    return ago(seconds, context["now"])


def _shown(value: object) -> object:
    """A value of a template without control sequences, and without signs that reverse the text around them."""
    is_plain = not isinstance(value, str) or isinstance(value, Markup) or value.isprintable()
    return value if is_plain else without_controls(str(value))


def _attacking(wanted: Filter) -> Filter:
    """The filter, with only the verdicts that may mean an attack."""
    verdicts = (Term("verdict", name) for name, verdict in VERDICTS.items() if verdict.severity == "attack")
    return Filter((*wanted.terms, *verdicts), wanted.since, wanted.until)


def _base(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; empty if it is larger than our forms."""
    body = await bounded_body(request, _MAX_FORM) or b""
    return dict(parse_qsl(body.decode("utf-8", "replace")))
