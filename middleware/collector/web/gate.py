"""The gate in front of everything except the intake: it checks access, and adds the security headers."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynpin.errors import StoreError

from .access import Access, Refused, Viewer
from .answers import failure

__all__ = ["NO_STORAGE", "Gate", "is_for_programs", "path_within"]

# For people who have not signed in. It must not show the path of the file.
NO_STORAGE = "the report storage cannot be used now; the collector's log says why"
_NO_STORAGE = Refused(503, "not-stored", NO_STORAGE, wait=60)
_NOT_SIGNED_IN = Refused(401, "sign-in", "sign in, or send the password")
_CLOSED = Refused(
    403,
    "no-access",
    "nobody may read the reports yet: give the collector password=, user_header= or open_access=True "
    "(dynpin collect: DYNPIN_COLLECTOR_PASSWORD, --user-header or --open-access)",
)
_TITLES = {421: "This collector has another name", 429: "Please wait", 503: "The report storage cannot be used now"}

_HEALTH = ("/healthz", "/readyz")
_PUBLIC = ("/healthz", "/readyz", "/sign-in", "/static/style.css")
# Paths for programs: they get a 401 with a message. People are redirected to the form.
_FOR_PROGRAMS = ("/api/", "/metrics", "/export/", "/healthz", "/readyz")
# Paths that a token for one site may read: they show only reports about that site.
_OF_SITES = ("/api/groups", "/api/reports", "/export/")
_HEADERS = {
    # No scripts, nothing from other origins, no frames.
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Gate:
    """Lets in who may read, and adds the security headers to every answer.

    Args:
        app: the app behind the gate.
        access: decides who may read.
        say: makes a page from a request, a status, a title and a text.
        public_url: the address of the collector. If it is set, the pages have no other host name.
    """

    def __init__(
        self, app: ASGIApp, access: Access, say: Callable[[Request, int, str, str], Response], public_url: str = ""
    ) -> None:
        self.app = app
        self.access = access
        self._say = say
        self.public_url = public_url
        self._names = {urlsplit(public_url).hostname, "localhost", "127.0.0.1", "::1"} if public_url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with ``request.state.viewer`` set, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        path = path_within(scope)
        request = Request(scope, receive)
        # Health checks use the IP address. Any other name may be an attack (DNS rebinding).
        if path not in _HEALTH and self._names is not None and _host(request) not in self._names:
            answer = self._answer(request, Refused(421, "other-host", f"this collector is at {self.public_url}"))
            await answer(scope, receive, send_guarded)
            return
        if path in _PUBLIC:
            scope.setdefault("state", {})["viewer"] = None
            await self.app(scope, receive, send_guarded)
            return
        try:
            viewer = await self.access.viewer(request)
        except StoreError:
            await self._answer(request, _NO_STORAGE)(scope, receive, send_guarded)
            return
        refused = _lacking(request, path, viewer) if isinstance(viewer, Viewer) else viewer
        if refused is not None:
            await self._answer(request, refused)(scope, receive, send_guarded)
            return
        if viewer is None:
            await self._turned_away(request)(scope, receive, send_guarded)
            return
        scope.setdefault("state", {})["viewer"] = viewer
        await self.app(scope, receive, send_guarded)

    def _turned_away(self, request: Request) -> Response:
        """The answer to somebody who has not signed in."""
        if self.access.is_closed:
            return self._answer(request, _CLOSED)
        if is_for_programs(request.scope):
            return self._answer(request, _NOT_SIGNED_IN)
        if not self.access.has_password:
            return self._answer(request, Refused(403, "no-user", "the reverse proxy names no user for this request"))
        if request.method not in ("GET", "HEAD"):
            return self._answer(request, Refused(403, "session", "your session has ended; sign in and try again"))
        return RedirectResponse(f"{request.scope.get('root_path', '')}/sign-in", status_code=303)

    def _answer(self, request: Request, refused: Refused) -> Response:
        headers = {"retry-after": str(refused.wait)} if refused.wait else {}
        if refused.status == 401 and self.access.has_password:
            headers["www-authenticate"] = 'Basic realm="dynpin collector"'
        if is_for_programs(request.scope):
            return failure(refused.status, refused.code, refused.message, headers)
        request.scope.setdefault("state", {})["viewer"] = None
        text = f"{refused.message[:1].upper()}{refused.message[1:]}."
        answer = self._say(request, refused.status, _TITLES.get(refused.status, "You may not read this"), text)
        answer.headers.update(headers)
        return answer


def _lacking(request: Request, path: str, viewer: Viewer) -> Refused | None:
    """The refusal, if the token lacks a scope."""
    if path.startswith("/api/sites/"):
        return None  # the resource itself checks the site
    if request.method not in ("GET", "HEAD"):
        needed = "triage"
    elif path.startswith(_OF_SITES) and viewer.sites:
        return None
    else:
        needed = "read"
    if needed in viewer.scopes:
        return None
    return Refused(
        403, "scope", f"this needs a token of scope {needed}; this one has {', '.join(sorted(viewer.scopes))}"
    )


def _host(request: Request) -> str | None:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None


def path_within(scope: Scope) -> str:
    """The path, without the prefix where the app is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def is_for_programs(scope: Scope) -> bool:
    """Whether a program sends the request, and needs JSON instead of a page."""
    return path_within(scope).startswith(_FOR_PROGRAMS)
