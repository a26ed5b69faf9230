"""The report-uri endpoint: an ASGI app that takes violation reports, stores them and says what they mean.

It needs the extra ``collector``, which is imported only when :func:`collector` is called.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Unpack

from .intake import Limits, WSGIIntake
from .service import Service
from .settings import ServiceKeywords, ServiceSettings
from .storage import APIToken, Retention, Storage, Token, new_api_token, open_storage
from .worker import Alerts

if TYPE_CHECKING:
    from .app import Collector, Part

__all__ = [
    "APIToken",
    "Alerts",
    "Limits",
    "Retention",
    "ServiceSettings",
    "Storage",
    "Token",
    "collector",
    "new_api_token",
    "open_storage",
    "wsgi_intake",
]


def collector(
    storage: str | os.PathLike[str] | Storage,
    *,
    password: str | None = None,
    user_header: str | None = None,
    open_access: bool = False,
    public_url: str = "",
    parts: Iterable[Part] = ("intake", "worker", "web"),
    **settings: Unpack[ServiceKeywords],
) -> Collector:
    """An ASGI app that takes violation reports (RFC 7469 §3). Serve it, or mount it in Starlette or FastAPI.

    ``POST /r/<token>/enforce`` and ``/r/<token>/report-only`` take reports. The pages begin at ``/``, and
    ``GET /api/reports`` and ``/api/groups`` give JSON. Nobody may read without `password`, `user_header` or
    `open_access`. The intake is always public.

    Args:
        storage: the SQLite file, or another storage.
        password: the password of the pages: the text, or its argon2 hash.
        user_header: the header in which a reverse proxy names the signed-in user, such as ``X-Remote-User``. The
            proxy must remove this header from requests of clients, and `trusted_proxies` must contain the proxy.
        open_access: let everyone who reaches the app read the reports: for a test, or behind another access check.
        public_url: the address of the collector for people and clients. Pages show report-uris below it, and are then
            served only under its host name.
        parts: what this process does: ``"intake"`` takes reports, ``"worker"`` gives verdicts, sends alerts and deletes
            old reports, ``"web"`` serves the pages and the API.
        settings: the attributes of :class:`ServiceSettings`, such as ``tokens=["shop"]``.

    Switch off the server's own handling of forwarded headers (``uvicorn --no-proxy-headers``).

    Raises:
        ValueError: if a part does not exist, or a setting cannot work.
        ModuleNotFoundError: if Starlette is missing; the message names the extra.
        StoreError: if the storage cannot be used.
    """
    try:
        from .app import PARTS, Collector  # noqa: PLC0415 - needs what the extra brings
        from .web import Access  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the collector needs {error.name}. Install dynpin again with its extra, from your clone:  "
            "pip install '.[collector]'",
            name=error.name,
        ) from error
    chosen = frozenset(parts)
    if not chosen or not chosen <= PARTS:
        raise ValueError(f"parts are {', '.join(sorted(PARTS))}, not {', '.join(sorted(chosen)) or 'none'}")
    chosen_settings = ServiceSettings(**settings)
    if user_header and not chosen_settings.proxies():
        raise ValueError(
            f"anybody could send {user_header}; name your reverse proxy with trusted_proxies (--trusted-proxy)"
        )
    service = Service(storage, chosen_settings, has_worker="worker" in chosen)
    access = Access(service.storage, service.clock, password=password, user_header=user_header, open_access=open_access)
    return Collector(service, access, chosen, chosen_settings.proxies(), public_url.rstrip("/"))


def wsgi_intake(storage: str | os.PathLike[str] | Storage, **settings: Unpack[ServiceKeywords]) -> WSGIIntake:
    """Only the intake, as a WSGI app, for Flask and others. ``dynpin collect`` on the same file serves the pages.

    It takes reports by POST at ``/r/<token>/enforce`` and ``/r/<token>/report-only``, below the path where it is
    mounted. The keywords are the attributes of :class:`ServiceSettings`. It needs `certifi` and SQLAlchemy of the
    extra ``collector``.
    """
    chosen_settings = ServiceSettings(**settings)
    service = Service(storage, chosen_settings)
    return WSGIIntake(service.intake, service.close, chosen_settings.proxies())
