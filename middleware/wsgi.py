"""The WSGI middleware: the header of a policy on every https response (RFC 7469 §2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Unpack

from .behind_proxy import FIELDS, BehindProxy
from .policy import PolicyOptions, PolicySource, policies_to_send

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["PublicKeyPinsWSGIMiddleware"]

# Django's SECURE_PROXY_SSL_HEADER changes only Django's view: wsgi.url_scheme stays http.
_FIX = (
    "Make the server set wsgi.url_scheme: gunicorn --forwarded-allow-ips=ADDRESS, waitress --trusted-proxy=ADDRESS, or "
    "werkzeug's ProxyFix around this middleware. Django's SECURE_PROXY_SSL_HEADER alone is not enough"
)
_FORWARDED = {f"HTTP_{name.upper().replace('-', '_')}": name for name in FIELDS}


class PublicKeyPinsWSGIMiddleware:
    """Sends the header of a policy on every https response of a WSGI app: also on errors, redirects, streams and HEAD.

    If the application has set the field, its value is kept. Plain http and bodies are not changed.

    Args:
        app: the application; in Flask ``app.wsgi_app = PublicKeyPinsWSGIMiddleware(app.wsgi_app, policy)``.
        policy: a :class:`~dynpin.middleware.Policy`, or the path of a ``dynpin.toml``; or use `options`.
        report_only: a second policy, of mode ``"report-only"``, sent in addition, to try out the next set of pins.
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
        # RFC 7469 §2.2.1, §2.2.2: only over TLS. If the server trusts its proxy, this is the client's scheme.
        if environ.get("wsgi.url_scheme") != "https":
            fields = [(name, environ[key]) for key, name in _FORWARDED.items() if key in environ]
            self._proxy.see(fields, _FIX)
            return self.app(environ, start_response)

        def start_with_pins(
            status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
        ) -> Callable[[bytes], object]:
            # Copy: an application may pass the same list again, over plain http or after a rotation.
            headers = [*headers]
            for policy in self.policies:
                field = policy.text_field
                if field is None:
                    continue
                name = field[0]
                size = len(name)
                for present, _ in headers:  # §2.2.1: exactly one of each
                    # Compare the length first, which is faster than lower().
                    if len(present) == size and present.lower() == name.lower():
                        break
                else:
                    headers.append(field)
            # PEP 3333: the third argument is optional, so a server's callable may take only two.
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        return self.app(environ, start_with_pins)
