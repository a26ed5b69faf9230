"""The report-uri endpoint: an ASGI app that takes violation reports, keeps them and says what they mean.

Needs the extra ``collector``; nothing of it is imported before :func:`collector` is called.
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
    """An ASGI app that takes violation reports (RFC 7469 §3): serve it, or mount it in Starlette or FastAPI.

    ``POST /r/<token>/enforce`` and ``/r/<token>/report-only`` take reports. The pages begin at ``/``;
    ``GET /api/reports`` and ``/api/groups`` give JSON. Without one of `password`, `user_header` and `open_access`
    nobody may read; the intake is public always.

    Args:
        storage: the SQLite file, or another storage.
        password: what people sign in with: the text, or its argon2 hash.
        user_header: the header in which a reverse proxy names the user it has signed in, such as ``X-Remote-User``;
            the proxy must remove it from what clients send, and `trusted_proxies` name it.
        open_access: let everyone who reaches the app read the reports; for a test, or behind something that checks.
        public_url: where people and clients reach this; pages show report-uris below it, and then answer to its name
            alone.
        parts: what this process does: ``"intake"`` takes reports, ``"worker"`` gives verdicts, sends alerts and deletes
            what is old, ``"web"`` shows it all.
        settings: what it takes, keeps and knows: the attributes of :class:`ServiceSettings`, such as
            ``tokens=["shop"]``. Serve the app with the server's own belief in forwarded headers switched off
            (``uvicorn --no-proxy-headers``).

    Raises:
        ValueError: for a part that there is not, and for a setting that cannot work.
        ModuleNotFoundError: where Starlette is missing; the message names the extra.
        StoreError: where the file cannot be used.
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
        raise ValueError(f"who may send {user_header}? name your reverse proxy with trusted_proxies (--trusted-proxy)")
    service = Service(storage, chosen_settings, has_worker="worker" in chosen)
    access = Access(service.storage, service.clock, password=password, user_header=user_header, open_access=open_access)
    return Collector(service, access, chosen, chosen_settings.proxies(), public_url.rstrip("/"))


def wsgi_intake(storage: str | os.PathLike[str] | Storage, **settings: Unpack[ServiceKeywords]) -> WSGIIntake:
    """The intake alone as a WSGI app, for Flask and its like; ``dynpin collect`` on the same file has the pages.

    It takes what is POSTed to ``/r/<token>/enforce`` and ``/r/<token>/report-only`` below the place where it is
    mounted. The keywords are the attributes of :class:`ServiceSettings`; of the
    extra it needs `certifi` and SQLAlchemy.
    """
    chosen_settings = ServiceSettings(**settings)
    service = Service(storage, chosen_settings)
    return WSGIIntake(service.intake, service.close, chosen_settings.proxies())
