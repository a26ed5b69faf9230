"""Ask the collector whether clients have reported violations of a policy."""

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


_REACH_IT = "check that the collector runs, and can be reached from here"


def ask(ramp: Ramp, since: float) -> CollectorAnswer:
    """The collector's reports about this policy since a time, without muted groups."""
    api = CollectorAPI(ramp.collector, ramp.token_file, ramp.ca)
    try:
        found: list[list[float]] = []
        # Groups come in the order of their last report, so that one group has the time. Open groups need a request of
        # their own, since any number of other groups may come before them.
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
        why = getattr(error, "strerror", None) or error
        return CollectorAnswer(failure=f"{ramp.collector} cannot be asked: {why}; {_REACH_IT}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return CollectorAnswer(
            failure=f"{ramp.collector}/api/groups gives no groups; check that this is the address of a dynpin collector"
        )


def intake_refusal(ramp: Ramp) -> str:
    """Why the report-uri does not take reports; empty if it does. If it takes none, quiet means nothing."""
    try:
        # Send a body that is not a report. A collector that knows the token declines it, and another one answers 404.
        fields = {"Content-Type": "application/json"}
        api = CollectorAPI(ramp.collector, ca=ramp.ca)
        status = api.send(ramp.report_uri, "POST", fields, b"{}").status
    except Unusable as error:
        return str(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return f"report_uri {ramp.report_uri} cannot be reached: {why}; {_REACH_IT}"
    if status in (200, 204, 400):
        return ""
    return f"report_uri {ramp.report_uri} answers {status} to a report; check that the collector knows its token"


def _unseen(ramp: Ramp, sites: list[str]) -> str:
    """Why an answer about only these sites is not enough; empty if it is. Hidden reports would count as quiet."""
    for host in map(canonical_host, ramp.hosts):
        if sites and not any(host == site or host.endswith(f".{site}") for site in sites):
            return (
                f"the token may read only about {', '.join(sites)} at {ramp.collector}, but the ramp is for {host}; "
                f"make a token of scope site:{host} or read (dynpin collect api-tokens add)"
            )
    return ""


def _hint(status: int) -> str:
    if status not in (401, 403):
        return ""
    return (
        "; put a token of scope read (dynpin collect api-tokens add) into [ramp] token_file or DYNPIN_COLLECTOR_TOKEN"
    )
