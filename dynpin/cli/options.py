"""The options that several commands share, declared once, so that name and help are the same everywhere."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail
from dynpin.cli.printing import expect_json

__all__ = [
    "DEFAULT_HISTORY",
    "DEFAULT_INVENTORY",
    "AcceptClockOption",
    "AuditOption",
    "CaOption",
    "CapOption",
    "DarkOption",
    "ExpiresOption",
    "HistoryOption",
    "InventoryOption",
    "JsonOption",
    "NowOption",
    "OptionalHistoryOption",
    "ProcessesOption",
    "ReloadOption",
    "ReportUriOption",
    "SarifOption",
    "TimeoutOption",
    "cap_of",
    "moment",
]

DEFAULT_INVENTORY = Path("dynpin.toml")
DEFAULT_HISTORY = Path("dynpin-history.json")

_HISTORY = typer.Option("--history", help="The file of the rotation: what was served, and when.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.", callback=expect_json)]
DarkOption = Annotated[bool, typer.Option("--dark", help="Draw for a dark page.")]
ReloadOption = Annotated[
    str | None,
    typer.Option(
        "--reload",
        metavar="COMMAND",
        help="The command that makes the server read its files again, when they have changed.",
        show_default=False,
    ),
]
ReportUriOption = Annotated[
    str | None, typer.Option("--report-uri", metavar="URI", help="Where violations are reported.", show_default=False)
]
SarifOption = Annotated[bool, typer.Option("--sarif", help="Print the findings as SARIF 2.1.0, for CI.")]
CaOption = Annotated[
    Path | None, typer.Option("--ca", help="Trust these roots (PEM) and no others.", show_default=False)
]
AuditOption = Annotated[bool, typer.Option("--audit", help="Refuse nothing, and say what would have been refused.")]
AcceptClockOption = Annotated[
    bool, typer.Option("--accept-clock", help="Accept the time of this machine's clock as right.")
]
# Above a day: a larger number would be an error of the system's.
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", help="Seconds to wait for each connection and each answer.", min=0.01, max=86_400),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes",
        help="How many processes work at once. The default is the number of processors.",
        min=1,
        show_default=False,
    ),
]
ExpiresOption = Annotated[
    datetime | None,
    typer.Option(
        "--expires",
        formats=["%Y-%m-%d"],
        metavar="YYYY-MM-DD",
        help="The day on which static pins end, UTC.",
        show_default=False,
    ),
]
InventoryOption = Annotated[
    Path | None,
    typer.Option(
        "--inventory",
        help="The file that describes the site. The default is ./dynpin.toml, if it exists.",
        show_default=False,
    ),
]
HistoryOption = Annotated[Path, _HISTORY]
OptionalHistoryOption = Annotated[Path | None, _HISTORY]
CapOption = Annotated[
    int | None,
    typer.Option(
        "--client-cap",
        help="Days after which every client forgets, whatever max-age says (dynpin's clients: 60).",
        min=1,
    ),
]
# For tests and for practice of a rotation. It is hidden, since a production site has a clock.
NowOption = Annotated[
    str | None,
    typer.Option("--now", help="Answer as of this time (RFC 3339, or a day in UTC).", show_default=False, hidden=True),
]


_YEAR_9000 = datetime(9000, 1, 1, tzinfo=UTC).timestamp()


def cap_of(days: int | None) -> int | None:
    """The days of --client-cap as seconds; None if there is no cap."""
    return None if days is None else days * 24 * 60 * 60


def moment(text: str | None) -> float:
    """The time of --now, in seconds since the epoch, UTC; by default the current time. Wrong usage ends the command."""
    if text is None:
        return time.time()
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text} is not a time: write 2026-12-24 or 2026-12-24T18:00:00Z")
    at = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if not 0 <= at < _YEAR_9000:
        fail(f"{text} is out of range: --now takes the years from 1970 to 8999, so that what expires later has a date")
    return at
