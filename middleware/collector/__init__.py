"""The report-uri endpoint: an ASGI app that takes violation reports, keeps them and says what they mean.

Needs the extra ``collector``; nothing of it is imported before :func:`collector` is called.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from dynpin.pins import Pin

from .intake import Limits, WSGIIntake
from .service import Service
from .storage import Retention, SQLiteStorage, Storage, Token
from .worker import Alerts

if TYPE_CHECKING:
    from .app import Collector

__all__ = ["Alerts", "Limits", "Retention", "SQLiteStorage", "Storage", "Token", "collector", "wsgi_intake"]


def collector(
    storage: str | os.PathLike[str] | Storage,
    *,
    tokens: Iterable[str | Token] = (),
    password: str | None = None,
    user_header: str | None = None,
    open_access: bool = False,
    limits: Limits | None = None,
    keys: Mapping[Pin, str] | None = None,
    roots: bytes = b"",
    retention: Retention | None = None,
    alerts: Alerts | None = None,
    truncate_addresses: bool = True,
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
        limits: how much is taken.
        keys: your own keys, pin to name: triage then tells your keys from others'.
        roots: your own root certificates, PEM: triage then tells your CA from an unknown one.
        retention: what is kept, 90 days and 1 GiB unless said otherwise.
        alerts: whom to tell of new groups and sudden rises.
        truncate_addresses: keep the /24 or /48 of a client, never its address.
        clock: seconds since the epoch, UTC.

    Raises:
        ModuleNotFoundError: where Starlette is missing; the message names the extra.
        StoreError: where the file cannot be used.
    """
    try:
        from .app import Collector  # noqa: PLC0415 - needs what the extra brings
        from .web import Access  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the collector needs {error.name}: pip install "dynpin[collector]"', name=error.name
        ) from error
    service = Service(
        storage,
        tokens=tokens,
        limits=limits,
        keys=keys,
        roots=roots,
        retention=retention,
        alerts=alerts,
        clock=clock,
        truncate_addresses=truncate_addresses,
    )
    return Collector(service, Access(service, password=password, user_header=user_header, open_access=open_access))


def wsgi_intake(
    storage: str | os.PathLike[str] | Storage,
    *,
    tokens: Iterable[str | Token] = (),
    limits: Limits | None = None,
    keys: Mapping[Pin, str] | None = None,
    roots: bytes = b"",
    retention: Retention | None = None,
    alerts: Alerts | None = None,
    truncate_addresses: bool = True,
    clock: Callable[[], float] = time.time,
) -> WSGIIntake:
    """The intake alone as a WSGI app, for Flask and its like; ``dynpin collect`` on the same file has the pages.

    It takes what is POSTed to ``/r/<token>/enforce`` and ``/r/<token>/report-only`` below the place where it is
    mounted. The arguments are those of :func:`collector`; nothing of the extra is needed but `certifi`.
    """
    service = Service(
        storage,
        tokens=tokens,
        limits=limits,
        keys=keys,
        roots=roots,
        retention=retention,
        alerts=alerts,
        clock=clock,
        truncate_addresses=truncate_addresses,
    )
    return WSGIIntake(service.intake, service.close)
