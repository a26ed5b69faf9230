"""Asking the collector whether clients have reported violations of a policy."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from base64 import b64encode
from datetime import datetime
from typing import cast
from urllib.parse import quote, urlencode, urlsplit

from dynpin.report import rfc3339

from ..steps import CollectorAnswer, Ramp

__all__ = ["ask", "intake_refusal"]

_TIMEOUT = 10.0
_LONGEST = 4 << 20


def ask(ramp: Ramp, since: float) -> CollectorAnswer:
    """What the collector has of this policy since a time; muted groups are left out, since somebody chose so."""
    try:
        found: list[list[float]] = []
        # Groups come the last seen first, so that one tells the time; the open ones are asked for apart, since they may
        # stand behind any number of others.
        for more in ({"state": "open", "limit": "100"}, {"state!": "muted", "limit": "1"}, {"limit": "1"}):
            query = urlencode({"token": ramp.token, "since": rfc3339(since), **more})
            status, body = _request(f"{ramp.collector}/api/groups?{query}", "GET", _signing_in(ramp))
            if status != http.HTTPStatus.OK:
                hint = (
                    "; its password stands in [ramp] password_file or DYNPIN_PASSWORD" if status in (401, 403) else ""
                )
                return CollectorAnswer(failure=f"{ramp.collector}/api/groups answers {status}{hint}")
            groups = cast("list[dict[str, str]]", json.loads(body)["entries"])
            found.append([datetime.fromisoformat(group["last-seen"]).timestamp() for group in groups])
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
        status, _ = _request(ramp.report_uri, "POST", {"Content-Type": "application/json"}, b"{}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"report_uri {ramp.report_uri} cannot be reached: {getattr(error, 'strerror', None) or error}"
    if status in (200, 204, 400):
        return ""
    return f"report_uri {ramp.report_uri} answers {status} to a report: is its token known to the collector?"


def _signing_in(ramp: Ramp) -> dict[str, str]:
    if ramp.password_file is not None:
        password = ramp.password_file.read_text("utf-8-sig").partition("\n")[0].strip()
    else:
        password = os.environ.get("DYNPIN_PASSWORD", "")
    return {"Authorization": f"Basic {b64encode(f':{password}'.encode()).decode()}"} if password else {}


def _request(url: str, method: str, fields: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
    # http.client follows no redirect and reads no proxy from the environment: the password goes to this host alone.
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=ssl.create_default_context())
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
