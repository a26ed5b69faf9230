"""`dynpin lint HEADER`: the faults of a pinning header, each with its reason and its mend."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from dynpin.cli.errors import fail, finding
from dynpin.cli.site import InventoryOption, site_of
from dynpin.deploy.lint import SEVERITIES, Circumstances, Finding, Severity, field_name
from dynpin.deploy.lint import lint as lint_header
from dynpin.deploy.lint.sarif import sarif
from dynpin.deploy.lint.sources import HeaderField, fields_of_har, fields_of_lines
from dynpin.header import ENFORCE_NAME

__all__ = ["FailOnOption", "Threshold", "fails", "lint", "printable", "show_findings"]

Threshold = Literal["info", "warning", "error", "critical"]
FailOnOption = Annotated[
    Threshold, typer.Option("--fail-on", help="The least severity that makes the exit code 1.", show_default=True)
]
_STYLES: dict[Severity, str] = {"info": "cyan", "warning": "yellow", "error": "red", "critical": "bold white on red"}


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
        show_findings(fields, results)
    if fails([found for _, found in results], fail_on):
        finding()


def _fields(header: str | None, name: str, known: Circumstances) -> list[HeaderField]:
    if header == "-":
        # RFC 7230 §3.2.4: bytes beyond ASCII are no text of any certain encoding.
        return fields_of_lines(sys.stdin.buffer.read().decode("latin-1"), known)
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
    return [HeaderField("header", name, header, known)]


def fails(findings: Sequence[Finding], threshold: Threshold) -> bool:
    """Whether one of the findings is as severe as `threshold`."""
    least = SEVERITIES.index(threshold)
    return any(SEVERITIES.index(found.severity) >= least for found in findings)


def as_dict(each: HeaderField, found: Finding) -> dict[str, object]:
    """A finding as JSON, with the field that it is about."""
    return {**found.to_dict(), "field": each.name, "source": each.source}


def show_findings(fields: Sequence[HeaderField], results: Sequence[tuple[HeaderField, Finding]]) -> None:
    """Print the findings for a person: each header, its faults marked in it, then reason and mend."""
    console = Console(highlight=False)
    for each in fields:
        mine = [found for other, found in results if other is each]
        console.print(_marked(each, mine))
        for found in mine:
            console.print()
            console.print(Text.assemble((f" {found.severity} ", _STYLES[found.severity]), " ", (found.fault, "bold")))
            if found.span and each.value and found.span != (0, len(each.value)):
                piece = printable(each.value[found.span[0] : found.span[1]])
                console.print(Text(f"  > {piece if len(piece) < 400 else piece[:397] + '...'}", style="dim"))
            console.print(_paragraph(printable(found.message), console.width))
            console.print(_paragraph(f"RFC 7469 §{found.section}. {found.effect}", console.width, "Why   "))
            console.print(_paragraph(printable(found.mend), console.width, "Mend  "))
        console.print()
    count = len(results)
    console.print("No fault found." if not count else f"{count} finding{'' if count == 1 else 's'}.")


def _paragraph(text: str, width: int, label: str = "") -> Text:
    lines = textwrap.wrap(
        f"{label}{text}",
        width,
        initial_indent="  ",
        subsequent_indent=" " * (2 + len(label)),
        break_on_hyphens=False,
        break_long_words=False,  # what is copied stays whole
    )
    return Text("\n".join(lines))


def printable(text: str) -> str:
    """The text with a mark for each character that a terminal would obey: a header may be an attacker's.

    Each stands for one, so that positions stay what they are.
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _marked(each: HeaderField, findings: Sequence[Finding]) -> Text:
    text = Text.assemble((f"{each.name}: ", "bold"), printable(each.value or ""))
    start = len(each.name) + 2
    for found in reversed(findings):
        if found.span and found.span != (0, len(each.value or "")):
            text.stylize(f"underline {_STYLES[found.severity]}", start + found.span[0], start + found.span[1])
    return text if each.source == "header" else Text(f"{printable(each.source)}\n").append_text(text)
