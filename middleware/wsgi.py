"""The WSGI middleware: Public-Key-Pins on every https response (RFC 7469 §2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dynpin.middleware.asgi import policies
from dynpin.middleware.policy import Policy

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["PublicKeyPinsWSGIMiddleware"]


class PublicKeyPinsWSGIMiddleware:
    """Sends the header of a policy on every https response of a WSGI app, errors and streams too.

    Args:
        app: the application; in Flask ``app.wsgi_app = PublicKeyPinsWSGIMiddleware(app.wsgi_app, policy)``.
        policy: what to pin; or else the keywords of :class:`Policy`.
        report_only: a second policy, in mode ``"report-only"``, sent beside the first (§2.3.2).
        policy_options: the keywords of :class:`Policy`, where no policy is given.

    Raises:
        PolicyError: where the policy would harm.
    """

    def __init__(
        self,
        app: WSGIApplication,
        policy: Policy | None = None,
        *,
        report_only: Policy | None = None,
        **policy_options: Any,  # noqa: ANN401 - those of Policy
    ) -> None:
        self.app = app
        self.policies = policies(policy, report_only, policy_options)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; all but https pass untouched, and no body is ever held back."""
        # RFC 7469 §2.2.2: not over non-secure transport. The scheme is the server's word, after its trusted proxies.
        if environ.get("wsgi.url_scheme") != "https":
            return self.app(environ, start_response)

        def start_with_pins(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401
            # What the application has set itself stands: the field is never doubled (§2.2.1).
            present = {name.lower() for name, _ in headers}
            added = [
                (field.name, str(field))
                for policy in self.policies
                if (field := policy.header) is not None and field.name.lower() not in present
            ]
            if exc_info is None:
                return start_response(status, headers + added)
            return start_response(status, headers + added, exc_info)

        return self.app(environ, start_with_pins)
