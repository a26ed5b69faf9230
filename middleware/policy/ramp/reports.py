"""Asking the collector whether clients have reported violations of a policy."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import ssl
from datetime import datetime
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlencode, urlsplit

from dynpin.report import rfc3339

from ..files import read_file
from ..steps import CollectorAnswer, Ramp

__all__ = ["ask", "intake_refusal"]

_TIMEOUT = 10.0
_LONGEST = 4 << 20


def ask(ramp: Ramp, since: float) -> CollectorAnswer:
    """What the collector has of this policy since a time; muted groups are left out, since somebody chose so."""
    try:
        fields, context = _authorization(ramp), _context(ramp)
    except _Unusable as error:
        return CollectorAnswer(failure=str(error))
    try:
        found: list[list[float]] = []
        # Groups come the last seen first, so that one tells the time; the open ones are asked for apart, since they may
        # stand behind any number of others.
        for more in ({"state": "open", "limit": "100"}, {"state!": "muted", "limit": "1"}, {"limit": "1"}):
            query = urlencode({"token": ramp.token, "since": rfc3339(since), **more})
            status, body = _request(f"{ramp.collector}/api/groups?{query}", "GET", fields, context)
            if status != http.HTTPStatus.OK:
                return CollectorAnswer(failure=f"{ramp.collector}/api/groups answers {status}{_hint(status)}")
            groups = cast("list[dict[str, str]]", json.loads(body)["entries"])
            found.append([datetime.fromisoformat(group["last_seen"]).timestamp() for group in groups])
        waiting, counted, known = found
        return CollectorAnswer(max(counted, default=None), len(waiting), newest_at=max(known, default=None))
    except (OSError, http.client.HTTPException) as error:
        return CollectorAnswer(failure=f"{ramp.collector} cannot be asked: {getattr(error, 'strerror', None) or error}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return CollectorAnswer(
            failure=f"{ramp.collector}/api/groups gives no groups: is it the address of a dynpin collector?"
        )


def intake_refusal(ramp: Ramp) -> str:
    """Why the report-uri does not take reports, or an empty text: where none can arrive, quiet means nothing."""
    try:
        # What is no report: whoever knows the token declines it, and whoever does not says 404.
        fields = {"Content-Type": "application/json"}
        status, _ = _request(ramp.report_uri, "POST", fields, _context(ramp), b"{}")
    except _Unusable as error:
        return str(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"report_uri {ramp.report_uri} cannot be reached: {getattr(error, 'strerror', None) or error}"
    if status in (200, 204, 400):
        return ""
    return f"report_uri {ramp.report_uri} answers {status} to a report: is its token known to the collector?"


class _Unusable(Exception):
    """A file, or a way, by which the collector cannot be asked; the message says which."""


def _authorization(ramp: Ramp) -> dict[str, str]:
    """The token of the collector's API, as a header; none where there is none.

    Raises:
        _Unusable: where the file cannot be read, or the token would be read on the way.
    """
    file = ramp.token_file
    if file is None:
        token = os.environ.get("DYNPIN_COLLECTOR_TOKEN", "").strip()
    else:
        token = _text(file, "the token file").partition("\n")[0].strip()
        if not token:
            raise _Unusable(f"the token file {file} has no token in its first line")
    if not token:
        return {}
    if not token.isascii() or not token.isprintable():
        raise _Unusable(f"{file or 'DYNPIN_COLLECTOR_TOKEN'} has no token, but what no header can carry")
    parts = urlsplit(ramp.collector)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise _Unusable(f"the token is not sent to {ramp.collector}: over http it would be read on the way; use https")
    return {"Authorization": f"Bearer {token}"}


def _context(ramp: Ramp) -> ssl.SSLContext:
    """What verifies the collector: the roots that `ca` names, or those of the system."""
    if ramp.ca is None:
        return ssl.create_default_context()
    roots = _text(ramp.ca, "the roots of the collector,")
    try:
        return ssl.create_default_context(cadata=roots)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise _Unusable(f"the roots of the collector, {ramp.ca}, are no certificates in PEM ({reason})") from None


def _text(file: Path, what: str) -> str:
    try:
        return read_file(file).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise _Unusable(f"{what} {file} cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hint(status: int) -> str:
    if status not in (401, 403):
        return ""
    return (
        "; a token of scope read (dynpin collect api-tokens add) stands in [ramp] token_file or DYNPIN_COLLECTOR_TOKEN"
    )


def _request(
    url: str, method: str, fields: dict[str, str], context: ssl.SSLContext, body: bytes | None = None
) -> tuple[int, bytes]:
    # http.client follows no redirect and reads no proxy from the environment: the token goes to this host alone.
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=context)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    )
    try:
        path = quote(parts.path, safe="/%") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, fields)
        response = connection.getresponse()
        return response.status, response.read(_LONGEST)
    finally:
        connection.close()
