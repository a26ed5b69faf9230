"""`dynpin lint HEADER`: the faults of a pinning header and of the files behind it, each with its reason and its fix."""

from __future__ import annotations

import os
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dynpin.cli.errors import fail, finding, reason_of
from dynpin.cli.options import InventoryOption, JsonOption, SarifOption
from dynpin.cli.printing import print_json, say
from dynpin.cli.site import inventory_of
from dynpin.deploy.lint import (
    SEVERITIES,
    Circumstances,
    Finding,
    HeaderField,
    field_name,
    fields_of_har,
    fields_of_lines,
)
from dynpin.deploy.lint import lint as lint_header
from dynpin.deploy.lint.sarif import sarif
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

if TYPE_CHECKING:
    # Most headers need no file: then the readers of TOML and certificates are not imported.
    from dynpin.deploy.lint.holdings import Holdings

__all__ = ["FailOnOption", "Threshold", "as_dict", "fails", "holdings_named", "lint"]

# In bytes. A HAR file holds every response that a browser has seen.
_LONGEST_FILE = 1 << 30
_LONGEST_HEAD = 1 << 24

Threshold = Literal["info", "warning", "error", "critical"]
FailOnOption = Annotated[
    Threshold, typer.Option("--fail-on", help="The least severity that makes the exit code 1.", show_default=True)
]


def lint(
    header: Annotated[
        str | None,
        typer.Argument(
            help="The value of the header, or its whole line; or - for the header lines of a response on stdin "
            "(curl -sI … | dynpin lint -); or a HAR file. The default is the header that the inventory makes.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The name of the header field.")] = ENFORCE_NAME,
    context: Annotated[
        Path | None,
        typer.Option("--context", help="A JSON file that describes the response: scheme, host, chain_pins and so on."),
    ] = None,
    chain: Annotated[
        Path | None,
        typer.Option("--chain", help="The certificates that the server shows (PEM, leaf first).", show_default=False),
    ] = None,
    inventory: InventoryOption = None,
    scan: Annotated[
        str | None,
        typer.Option(
            "--scan",
            metavar="FILE",
            help="Count the headers of many sites. The file has JSON lines with host, status and headers, and may be "
            "a .gz; - is stdin. The exit code is always 0.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="With --scan: print the figures as CSV.")] = False,
    as_sarif: SarifOption = False,
    fail_on: FailOnOption = "warning",
) -> None:
    """Find the faults of a Public-Key-Pins header: what clients make of it, why (RFC 7469), and what to do instead.

    The more circumstances are known, the more faults can be found. With an inventory its keys and certificates are
    checked too. The exit code is 1 if a fault is found.

    Example: dynpin lint 'pin-sha256="…"; pin-sha256="…"; max-age=3600' --chain tls/fullchain.pem

    Example: dynpin lint --scan crawl.jsonl.gz
    """
    if as_json and (as_csv or as_sarif):
        fail(f"give --json or --{'csv' if as_csv else 'sarif'}: both would be on stdout")
    if scan is not None:
        if header is not None or context is not None or chain is not None or inventory is not None or as_sarif:
            fail("--scan takes a file of many responses: leave out the header, its circumstances and --sarif")
        from dynpin.cli.lint_scan import scan_file  # noqa: PLC0415 - for those who have a scan

        scan_file(scan, as_json=as_json, as_csv=as_csv)
        return
    if as_csv:
        fail("--csv prints the figures of a scan: give its file with --scan")
    try:
        known = Circumstances() if context is None else Circumstances.from_json(_data(context))
    except ValueError as error:
        fail(f"{context} has no circumstances: {error}")
    now = time.time()
    holdings = holdings_named(inventory, is_named_otherwise=context is not None or chain is not None, now=now)
    known = _with_chain(known, chain, holdings, now)
    fields: list[HeaderField] = []
    if holdings is not None:
        known = holdings.circumstances(known)
        if holdings.observed:
            about = Circumstances(observed=holdings.observed)
            fields.append(HeaderField(holdings.name, ENFORCE_NAME, None, about))
        if header is None and holdings.header is not None:
            header, name = str(holdings.header), holdings.header.name
    name = field_name(name)
    if header is not None or not fields:
        fields = [*_fields(header, name, known), *fields]
    _end(fields, as_json=as_json, as_sarif=as_sarif, fail_on=fail_on)


def _end(fields: Sequence[HeaderField], *, as_json: bool, as_sarif: bool, fail_on: Threshold) -> None:
    results = [
        (each, found)
        for each in fields
        for found in lint_header(each.value, name=each.name, circumstances=each.circumstances)
    ]
    if as_sarif:
        print_json(sarif(results))
    elif as_json:
        print_json([as_dict(each, found) for each, found in results])
    else:
        from dynpin.cli.findings import show_findings  # noqa: PLC0415 - beside what is shown

        show_findings(fields, results)
    if fails([found for _, found in results], fail_on):
        finding()


def holdings_named(inventory: Path | None, *, is_named_otherwise: bool, now: float) -> Holdings | None:
    """The content of this inventory, or of the one in this folder; None if there is none, or if it is not needed.

    Args:
        inventory: the file of ``--inventory``.
        is_named_otherwise: whether the keys were given in another way.
        now: the time for checking certificates, in seconds since the epoch, UTC.
    """
    site = inventory_of(inventory, is_named_otherwise=is_named_otherwise)
    if site is None:
        return None
    from dynpin.deploy.lint.holdings import holdings_of  # noqa: PLC0415 - for those who have an inventory

    return holdings_of(site, now)


def _with_chain(known: Circumstances, file: Path | None, holdings: Holdings | None, now: float) -> Circumstances:
    """The circumstances with the chain of a file, or with their own certificates, and the faults of that chain."""
    if file is None and not known.certificates:
        return known
    from dynpin.deploy.lint.holdings import observed_in_chain  # noqa: PLC0415 - for those who have certificates
    from dynpin.middleware.policy import Chain, read_chain, validated_path  # noqa: PLC0415

    if file is not None:
        chain = read_chain(file, "--chain")
    else:
        try:
            chain = Chain.of(map(ssl.PEM_cert_to_DER_cert, map(str.strip, known.certificates)), "certificates")
        except ValueError as error:
            fail(f"certificates: {error}")
    pins = tuple(map(str, validated_path(chain, () if holdings is None else holdings.inventory.roots)))
    hosts: tuple[str, ...] = () if known.host is None else (known.host,)
    if holdings is not None and not hosts:
        hosts = holdings.inventory.hosts
    observed = (*known.observed, *observed_in_chain(chain, hosts, now))
    if file is None:
        return replace(known, observed=observed)
    certificates = tuple(map(ssl.DER_cert_to_PEM_cert, chain.certificates))
    return replace(known, chain_pins=pins, certificates=certificates, observed=observed)


def _fields(header: str | None, name: str, known: Circumstances) -> list[HeaderField]:
    if header == "-":
        try:
            lines = sys.stdin.buffer.read(_LONGEST_HEAD + 1)
        except OSError as error:
            fail(reason_of(error, "stdin cannot be read"))
        if not lines:
            fail("there is nothing on stdin: - reads header lines, such as those of curl -sI URL")
        if len(lines) > _LONGEST_HEAD:
            fail(f"stdin is larger than {_LONGEST_HEAD >> 20} MiB, and no response has so many header lines")
        # RFC 7230 §3.2.4: the encoding of bytes beyond ASCII is unknown.
        return fields_of_lines(lines.decode("latin-1"), known)
    if header is None:
        if not (known.paths or known.nodes or known.observed):
            fail(
                "there is no dynpin.toml in this folder, and no header: give its value in quotes, - for lines on "
                "stdin, or a HAR file"
            )
    elif header.endswith(".har"):
        try:
            return fields_of_har(_data(Path(header)), known)
        except ValueError as error:
            fail(f"{header}: {error}")
    elif header.startswith(("http://", "https://")):
        fail(f"{header} is a URL, not a header: dynpin check {header} looks at what a site sends")
    elif os.path.isfile(header):  # noqa: PTH113 - a header may be longer than the name of a file
        fail(f"{header} is a file, not a header: dynpin lint - < {header} reads its header lines")
    else:
        name, header = _without_name(header, name)
    return [HeaderField("header", name, header, known)]


def _without_name(header: str, name: str) -> tuple[str, str]:
    """The name and the value of a header; a whole line names the field itself."""
    named, colon, value = header.partition(":")
    if not colon or named.strip().lower() not in (ENFORCE_NAME.lower(), REPORT_ONLY_NAME.lower()):
        return name, header
    name = field_name(named)
    say(f"dynpin: read as a line of {name}; the value in a server's configuration is only what follows", err=True)
    return name, value.strip()


def fails(findings: Sequence[Finding], threshold: Threshold) -> bool:
    """Whether one of the findings is as severe as `threshold`."""
    least = SEVERITIES.index(threshold)
    return any(SEVERITIES.index(found.severity) >= least for found in findings)


def as_dict(each: HeaderField, found: Finding) -> dict[str, object]:
    """A finding as JSON, with its field."""
    return {**found.to_dict(), "field": each.name, "source": each.source}


def _data(file: Path) -> bytes:
    from dynpin.middleware.policy import read_file  # noqa: PLC0415 - most headers are linted without any file

    return read_file(file, _LONGEST_FILE)
