"""The report-uri endpoint: an ASGI app that takes violation reports, keeps them and says what they mean.

Needs the extra ``collector``; nothing of it is imported before :func:`collector` is called.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from dynpin.pins import Pin

from .intake import Limits, SourceAddress, WSGIIntake
from .proxies import TrustedProxies
from .service import Service
from .storage import APIToken, Retention, Storage, Token, new_api_token, open_storage
from .worker import Alerts

if TYPE_CHECKING:
    from .app import Collector, Part

__all__ = [
    "APIToken",
    "Alerts",
    "Limits",
    "Retention",
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
    tokens: Iterable[str | Token] = (),
    password: str | None = None,
    user_header: str | None = None,
    open_access: bool = False,
    public_url: str = "",
    limits: Limits | None = None,
    keys: Mapping[Pin, str] | None = None,
    inventories: Mapping[str, Mapping[Pin, str]] | None = None,
    roots: bytes = b"",
    retention: Retention | None = None,
    alerts: Alerts | None = None,
    source_address: str = "/24,/48",
    trusted_proxies: Iterable[str] = (),
    parts: Iterable[Part] = ("intake", "worker", "web"),
    clock: Callable[[], float] = time.time,
) -> Collector:
    """An ASGI app that takes violation reports (RFC 7469 §3): serve it, or mount it in Starlette or FastAPI.

    ``POST /r/<token>/enforce`` and ``/r/<token>/report-only`` take reports. The pages begin at ``/``;
    ``GET /api/reports`` and ``/api/groups`` give JSON. Without one of `password`, `user_header` and `open_access`
    nobody may read; the intake is public always.

    Args:
        storage: the SQLite file, or another storage.
        tokens: what may stand in the URL, beside the tokens made by ``dynpin collect tokens``.
        password: what people sign in with: the text, or its argon2 hash.
        user_header: the header in which a reverse proxy names the user it has signed in, such as ``X-Remote-User``;
            the proxy must remove it from what clients send.
        open_access: let everyone who reaches the app read the reports; for a test, or behind something that checks.
        public_url: where people and clients reach this; pages show report-uris below it, and then answer to its name
            alone.
        limits: how much is taken.
        keys: your own keys, pin to name: triage then tells your keys from others'.
        inventories: the keys of one policy each, by its token: they stand in place of `keys`.
        roots: your own root certificates, PEM: triage then tells your CA from an unknown one.
        retention: what is kept, 90 days and 1 GiB unless said otherwise.
        alerts: whom to tell of new groups and sudden rises.
        source_address: how much of a client's address is kept, and counts as one source: ``whole``, ``/24`` or
            ``/24,/48``.
        trusted_proxies: the peers whose ``X-Forwarded-For``, ``X-Forwarded-Proto`` and `user_header` are believed:
            networks, addresses, and ``unix``. Serve the app with the server's own belief switched off
            (``uvicorn --no-proxy-headers``).
        parts: what this process does: ``"intake"`` takes reports, ``"worker"`` gives verdicts, sends alerts and deletes
            what is old, ``"web"`` shows it all.
        clock: seconds since the epoch, UTC.

    Raises:
        ValueError: for a part that there is not.
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
    service = Service(
        storage,
        tokens=tokens,
        limits=limits,
        keys=keys,
        inventories=inventories,
        roots=roots,
        retention=retention,
        alerts=alerts,
        clock=clock,
        source_address=SourceAddress.parse(source_address),
        has_worker="worker" in chosen,
    )
    if user_header and not trusted_proxies:
        raise ValueError(f"who may send {user_header}? name your reverse proxy with trusted_proxies (--trusted-proxy)")
    access = Access(service.storage, clock, password=password, user_header=user_header, open_access=open_access)
    return Collector(service, access, chosen, TrustedProxies(trusted_proxies), public_url.rstrip("/"))


def wsgi_intake(
    storage: str | os.PathLike[str] | Storage,
    *,
    tokens: Iterable[str | Token] = (),
    limits: Limits | None = None,
    keys: Mapping[Pin, str] | None = None,
    inventories: Mapping[str, Mapping[Pin, str]] | None = None,
    roots: bytes = b"",
    retention: Retention | None = None,
    alerts: Alerts | None = None,
    source_address: str = "/24,/48",
    trusted_proxies: Iterable[str] = (),
    clock: Callable[[], float] = time.time,
) -> WSGIIntake:
    """The intake alone as a WSGI app, for Flask and its like; ``dynpin collect`` on the same file has the pages.

    It takes what is POSTed to ``/r/<token>/enforce`` and ``/r/<token>/report-only`` below the place where it is
    mounted. The arguments are those of :func:`collector`; of the extra it needs `certifi` and SQLAlchemy.
    """
    service = Service(
        storage,
        tokens=tokens,
        limits=limits,
        keys=keys,
        inventories=inventories,
        roots=roots,
        retention=retention,
        alerts=alerts,
        clock=clock,
        source_address=SourceAddress.parse(source_address),
    )
    return WSGIIntake(service.intake, service.close, TrustedProxies(trusted_proxies))
