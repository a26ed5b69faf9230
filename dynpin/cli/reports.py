"""`dynpin reports list|send|drop`: the violation reports that wait in the pin store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dynpin.cli.consoles import table_console
from dynpin.cli.errors import fail, finding
from dynpin.cli.options import CaOption, JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.cli.stores import StoreOption, existing_store
from dynpin.clientstore import Delivery, QueuedReport, ReportQueue
from dynpin.counts import counted
from dynpin.deploy.trust import trusting
from dynpin.durations import duration
from dynpin.report import rfc3339

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def reports(context: typer.Context, store: Annotated[Path | None, typer.Option("--store", hidden=True)] = None) -> None:
    """The violation reports that are waiting to be sent (RFC 7469 §3)."""
    if store is not None:
        fail(f"write the options after the verb: dynpin reports {context.invoked_subcommand} …")


@app.command("list")
def list_reports(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the reports that are waiting, and those of the last week that were sent or given up.

    Example: dynpin reports list
    """
    with existing_store(store) as pins:
        reports = ReportQueue(pins, background=False).reports()
    if as_json:
        print_json([_describe(report) for report in reports])
        return
    if not reports:
        say("No violation report was queued.")
        return
    now = time.time()
    table = Table(box=None, pad_edge=False)
    for column in ("id", "host", "queued", "report-uri", "state"):
        table.add_column(column, overflow="fold")
    for report in reports:
        queued = f"{duration(now - report.created_at)} ago"
        table.add_row(str(report.id), report.host, queued, report.report_uri, _state(report, now))
    table_console().print(table)


@app.command()
def send(
    store: StoreOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send all waiting reports now. The exit code is 1 if a report was not accepted.

    Example: dynpin reports send --ca company-ca.pem
    """
    context = None if ca is None else trusting(ca)
    with existing_store(store) as pins:
        deliveries = ReportQueue(pins, context=context, background=False).send(early=True)
    if as_json:
        print_json([_outcome(delivery) for delivery in deliveries])
    elif not deliveries:
        say("No report waits.")
    else:
        for delivery in deliveries:
            say(f"{delivery.report.id}  {delivery.report.host}: {delivery.outcome}, {delivery.reason}")
    if any(delivery.outcome != "sent" for delivery in deliveries):
        finding()


@app.command()
def drop(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID", help="The numbers of the reports, as `list` shows them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all reports.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete reports without sending them. The exit code is 1 if there is no report with a number.

    Example: dynpin reports drop --all
    """
    if bool(ids) == everything:
        fail("name the reports to drop, or say --all")
    with existing_store(store) as pins:
        queue = ReportQueue(pins, background=False)
        missing = [number for number in ids or () if not queue.drop(number)]
        dropped = queue.drop() if everything else len(ids or ()) - len(missing)
    if as_json:
        print_json({"dropped": dropped, "missing": missing})
    elif dropped or everything:
        say(f"{dropped} dropped")
    if missing:
        finding(f"{pins.path} has no report {', '.join(map(str, missing))}; dynpin reports list shows the reports")


def _state(report: QueuedReport, now: float) -> str:
    if report.state == "sent":
        return "sent"
    tried = counted(report.attempts, "attempt")
    why = f", {tried}: {report.last_error}" if report.last_error else ""
    if report.next_attempt_at is None:
        return f"given up{why}"
    wait = report.next_attempt_at - now
    return f"waits{why}" + (f"; next in {duration(wait)}" if wait > 0 else "")


def _describe(report: QueuedReport) -> dict[str, object]:
    return {
        "id": report.id,
        "state": report.state,
        "host": report.host,
        "noted_host": report.noted_host,
        "report_uri": report.report_uri,
        "created_at": rfc3339(report.created_at),
        "attempts": report.attempts,
        "next_attempt_at": None if report.next_attempt_at is None else rfc3339(report.next_attempt_at),
        "sent_at": None if report.sent_at is None else rfc3339(report.sent_at),
        "last_error": report.last_error,
        "report": _members(report.body),
    }


def _members(body: str) -> object:
    """The report as JSON; None if it was sent or given up, or is damaged in the file."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def _outcome(delivery: Delivery) -> dict[str, object]:
    report = delivery.report
    return {
        "id": report.id,
        "host": report.host,
        "report_uri": report.report_uri,
        "outcome": delivery.outcome,
        "reason": delivery.reason,
    }
