"""Asking the collector whether clients have reported violations of a policy."""

from __future__ import annotations

import http.client
import json
from datetime import datetime
from typing import cast
from urllib.parse import urlencode

from dynpin.hosts import canonical_host
from dynpin.report import rfc3339

from ..collector_api import CollectorAPI, Unusable
from ..steps import CollectorAnswer, Ramp

__all__ = ["ask", "intake_refusal"]


def ask(ramp: Ramp, since: float) -> CollectorAnswer:
    """What the collector has of this policy since a time; muted groups are left out, since somebody chose so."""
    api = CollectorAPI(ramp.collector, ramp.token_file, ramp.ca)
    try:
        found: list[list[float]] = []
        # Groups come the last seen first, so that one tells the time; the open ones are asked for apart, since they may
        # stand behind any number of others.
        for more in ({"state": "open", "limit": "100"}, {"state!": "muted", "limit": "1"}, {"limit": "1"}):
            query = urlencode({"token": ramp.token, "since": rfc3339(since), **more})
            answer = api.ask(f"/api/groups?{query}")
            if answer.status != http.HTTPStatus.OK:
                failure = f"{ramp.collector}/api/groups answers {answer.status}{_hint(answer.status)}"
                return CollectorAnswer(failure=failure)
            body = json.loads(answer.body)
            if failure := _unseen(ramp, cast("list[str]", body["hosts"])):
                return CollectorAnswer(failure=failure)
            groups = cast("list[dict[str, str]]", body["entries"])
            found.append([datetime.fromisoformat(group["last_seen"]).timestamp() for group in groups])
        waiting, counted, known = found
        return CollectorAnswer(max(counted, default=None), len(waiting), newest_at=max(known, default=None))
    except Unusable as error:
        return CollectorAnswer(failure=str(error))
    except (OSError, http.client.HTTPException) as error:
        return CollectorAnswer(failure=f"{ramp.collector} cannot be asked: {getattr(error, 'strerror', None) or error}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return CollectorAnswer(
            failure=f"{ramp.collector}/api/groups gives no groups: is it the address of a dynpin collector?"
        )


def intake_refusal(ramp: Ramp) -> str:
    """Why the report-uri does not take reports, or an empty text: where none can arrive, quiet means nothing."""
    try:
        # What is not a report: whoever knows the token declines it, and whoever does not says 404.
        fields = {"Content-Type": "application/json"}
        api = CollectorAPI(ramp.collector, ca=ramp.ca)
        status = api.send(ramp.report_uri, "POST", fields, b"{}").status
    except Unusable as error:
        return str(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"report_uri {ramp.report_uri} cannot be reached: {getattr(error, 'strerror', None) or error}"
    if status in (200, 204, 400):
        return ""
    return f"report_uri {ramp.report_uri} answers {status} to a report: is its token known to the collector?"


def _unseen(ramp: Ramp, sites: list[str]) -> str:
    """Why an answer about these sites and their subdomains alone does not do: what is not seen would count as quiet."""
    for host in map(canonical_host, ramp.hosts):
        if sites and not any(host == site or host.endswith(f".{site}") for site in sites):
            return (
                f"the token reads about {', '.join(sites)} alone at {ramp.collector}, and the ramp is for {host}; "
                f"a token of scope site:{host} or read (dynpin collect api-tokens add) does"
            )
    return ""


def _hint(status: int) -> str:
    if status not in (401, 403):
        return ""
    return (
        "; a token of scope read (dynpin collect api-tokens add) stands in [ramp] token_file or DYNPIN_COLLECTOR_TOKEN"
    )
