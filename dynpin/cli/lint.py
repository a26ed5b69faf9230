"""`dynpin lint HEADER`: the faults of a pinning header, each with its reason and its mend."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.site import InventoryOption, site_of
from dynpin.deploy.lint import SEVERITIES, Circumstances, Finding, field_name
from dynpin.deploy.lint import lint as lint_header
from dynpin.deploy.lint.sarif import sarif
from dynpin.deploy.lint.sources import HeaderField, fields_of_har, fields_of_lines
from dynpin.header import ENFORCE_NAME

__all__ = ["FailOnOption", "Threshold", "fails", "lint"]

Threshold = Literal["info", "warning", "error", "critical"]
FailOnOption = Annotated[
    Threshold, typer.Option("--fail-on", help="The least severity that makes the exit code 1.", show_default=True)
]


def lint(
    header: Annotated[
        str | None,
        typer.Argument(
            help="The value of the header; - for the header lines of a response on stdin (curl -sI … | dynpin lint -); "
            "or a HAR file; without it, the header that the inventory makes.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The name of the header field.")] = ENFORCE_NAME,
    context: Annotated[
        Path | None,
        typer.Option("--context", help="A JSON file with the circumstances: scheme, host, chain_pins and so on."),
    ] = None,
    inventory: InventoryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON list.")] = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="Print the findings as SARIF 2.1.0, for CI.")] = False,
    fail_on: FailOnOption = "warning",
) -> None:
    """Find the faults of a Public-Key-Pins header: what clients make of it, why (RFC 7469), and what to do instead.

    The more circumstances are known, the more faults can be seen. Exit code 1 where a fault is found.
    """
    try:
        known = Circumstances() if context is None else Circumstances.from_json(context.read_bytes())
    except OSError as error:
        fail(f"{context}: {error.strerror or error}")
    except ValueError as error:
        fail(f"{context} holds no circumstances: {error}")
    site = site_of(inventory, is_named_otherwise=context is not None)
    if site is not None:
        known = replace(
            known,
            host=known.host or next((host for host in site.hosts if "*" not in host), None),
            held_keys=tuple(map(str, site.pins)),
            chain_pins=known.chain_pins or tuple(map(str, site.chain)),
        )
        if header is None:
            header, name = str(site.header), site.header.name
    try:
        fields = _fields(header, field_name(name), known)
        results = [
            (each, found)
            for each in fields
            for found in lint_header(each.value, name=each.name, circumstances=each.circumstances)
        ]
    except ValueError as error:
        fail(str(error))
    if as_sarif:
        typer.echo(json.dumps(sarif(results), indent=2))
    elif as_json:
        typer.echo(json.dumps([as_dict(each, found) for each, found in results], indent=2))
    else:
        from dynpin.cli.findings import show_findings  # noqa: PLC0415 - beside what is shown

        show_findings(fields, results)
    if fails([found for _, found in results], fail_on):
        finding()


def _fields(header: str | None, name: str, known: Circumstances) -> list[HeaderField]:
    if header == "-":
        try:
            lines = sys.stdin.buffer.read()
        except OSError as error:
            fail(f"stdin cannot be read: {error.strerror or error}")
        if not lines:
            fail("there is nothing on stdin: - reads header lines, such as those of curl -sI URL")
        # RFC 7230 §3.2.4: bytes beyond ASCII are no text of any certain encoding.
        return fields_of_lines(lines.decode("latin-1"), known)
    if header is None:
        if not (known.paths or known.nodes):
            fail("give the value of a header, - for header lines on stdin, or a HAR file")
    elif header.endswith(".har"):
        try:
            return fields_of_har(Path(header).read_bytes(), known)
        except OSError as error:
            fail(f"{header}: {error.strerror or error}")
        except ValueError as error:
            fail(f"{header}: {error}")
    elif header.startswith(("http://", "https://")):
        fail(f"{header} is a URL, and no header: dynpin check {header} looks at what a site sends")
    return [HeaderField("header", name, header, known)]


def fails(findings: Sequence[Finding], threshold: Threshold) -> bool:
    """Whether one of the findings is as severe as `threshold`."""
    least = SEVERITIES.index(threshold)
    return any(SEVERITIES.index(found.severity) >= least for found in findings)


def as_dict(each: HeaderField, found: Finding) -> dict[str, object]:
    """A finding as JSON, with the field that it is about."""
    return {**found.to_dict(), "field": each.name, "source": each.source}
