"""`dynpin get URL`: visit a site as a pinning client does, and say what happened to its pins."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dynpin.cli.errors import finding
from dynpin.cli.options import AuditOption, CaOption, JsonOption, TimeoutOption
from dynpin.cli.printing import print_json, say
from dynpin.cli.stores import StoreOption
from dynpin.cli.urls import https_url
from dynpin.cli.visit import Visit, visit
from dynpin.report import rfc3339

__all__ = ["get"]


def get(
    url: Annotated[str, typer.Argument(help="An https URL.")],
    store: StoreOption = None,
    ca: CaOption = None,
    audit: AuditOption = False,
    body: Annotated[bool, typer.Option("--body", help="Also print the body of the response to stdout.")] = False,
    timeout: TimeoutOption = 20.0,
    as_json: JsonOption = False,
) -> None:
    """Visit URL with a pin store: enforce what is pinned, note what the response pins, and print what was decided.

    The exit code is 1 if Pin Validation refuses the connection: then no request was sent. With --audit the request is
    sent anyway, nothing is noted, and the exit code is also 1. The exit code is 2 if there was no answer, if the
    certificate is not valid, or if the command is wrong. HTTPS_PROXY and NO_PROXY are used.

    Example: dynpin get https://www.example.com/
    """
    visited = visit(https_url(url), store=store, roots=ca, audit=audit, with_body=body, timeout=timeout)
    refused = visited.violation is not None and not audit
    if as_json:
        print_json({"url": url, **visited.as_json()})
    elif not refused:
        _show(visited)
    if body:
        _print_body(visited.body)
    if visited.violation is None:
        return
    message = str(visited.violation)
    if audit:
        message = f"{visited.noting.reason}. The request was sent: without --audit the connection is refused"
    finding(None if as_json else message)


def _show(visited: Visit) -> None:
    say(f"{visited.host} answered {visited.status}")
    say(f"  {visited.noting.outcome:<9}{visited.noting.reason} (RFC 7469 §{visited.noting.section})")
    known = visited.known_host
    for label, shown in (("shown", visited.chain), ("pinned", known.pins if known else ())):
        for index, pin in enumerate(shown):
            say(f"  {label if index == 0 else '':<9}{pin}")
    if known is not None and known.expires_at is not None:
        say(f"  {'until':<9}{rfc3339(known.expires_at)}")


def _print_body(body: bytes) -> None:
    if sys.stdout.isatty():
        # Escaped, since it is a stranger's text and a terminal may obey it.
        say(body.decode(errors="replace").replace("\r\n", "\n").expandtabs())
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(body)
