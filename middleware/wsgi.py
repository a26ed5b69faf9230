"""The WSGI middleware: the header of a policy on every https response (RFC 7469 §2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Unpack

from .behind_proxy import BehindProxy
from .policy import PolicyOptions, PolicySource, policies_to_send

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["PublicKeyPinsWSGIMiddleware"]

# Django's SECURE_PROXY_SSL_HEADER is seen by Django alone: wsgi.url_scheme stays http.
_FIX = (
    "Have the server set wsgi.url_scheme: gunicorn --forwarded-allow-ips=ADDRESS, waitress --trusted-proxy=ADDRESS, or "
    "werkzeug's ProxyFix around this middleware. Django's SECURE_PROXY_SSL_HEADER alone is not enough"
)


class PublicKeyPinsWSGIMiddleware:
    """Sends the header of a policy on every https response of a WSGI app: errors, redirects, streams and HEAD too.

    A field that the application has set stands, and is not doubled. Plain http passes untouched, and so does every
    body: what the app returns is handed on as it is.

    Args:
        app: the application; in Flask ``app.wsgi_app = PublicKeyPinsWSGIMiddleware(app.wsgi_app, policy)``.
        policy: what to send: a :class:`~dynpin.middleware.Policy`, or the path of a ``dynpin.toml``; or give the
            keywords of a policy right here.
        report_only: a policy of mode ``"report-only"`` to be sent beside it: the way to try out the next set of pins.
        options: the keywords of :class:`~dynpin.middleware.Policy`.

    Raises:
        PolicyError: if a policy is refused.
    """

    def __init__(
        self,
        app: WSGIApplication,
        policy: PolicySource | None = None,
        *,
        report_only: PolicySource | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        self.app = app
        self.policies = policies_to_send(policy, report_only, options)
        self._proxy = BehindProxy()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        # RFC 7469 §2.2.1, §2.2.2: over TLS alone. The scheme is as the client sees it, if the server trusts its proxy.
        if environ.get("wsgi.url_scheme") != "https":
            forwarded = f"{environ.get('HTTP_X_FORWARDED_PROTO', '')} {environ.get('HTTP_FORWARDED', '')}"
            self._proxy.see(forwarded, _FIX)
            return self.app(environ, start_response)

        def start_with_pins(
            status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
        ) -> Callable[[bytes], object]:
            # A copy: an application may give the same list again, over plain http or after a rotation.
            headers = [*headers]
            for policy in self.policies:
                field = policy.text_field
                if field is None:
                    continue
                name = field[0]
                size = len(name)
                for present, _ in headers:  # §2.2.1: exactly one of each
                    # Few names have this length: the others are told apart without folding their case.
                    if len(present) == size and present.lower() == name.lower():
                        break
                else:
                    headers.append(field)
            # PEP 3333: the third argument is optional, so a server's callable may be a plain function of two.
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        return self.app(environ, start_with_pins)
