"""`dynpin check URL`: what a live site does with its pins, and what is wrong with it."""

from __future__ import annotations

import json
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.lint import FailOnOption, as_dict, fails
from dynpin.cli.printing import say
from dynpin.cli.rotate import NowOption, moment, read_history
from dynpin.cli.site import InventoryOption, site_of
from dynpin.cli.urls import host_name, https_url, request_target
from dynpin.deploy.guard import guard
from dynpin.deploy.lint import Circumstances, Finding
from dynpin.deploy.lint import lint as lint_header
from dynpin.deploy.lint.sarif import sarif
from dynpin.deploy.lint.sources import HeaderField
from dynpin.deploy.live import Look, Site, addresses_of, look_at
from dynpin.deploy.rotation import History, Published
from dynpin.errors import DynpinError, InvalidHeader
from dynpin.header import PublicKeyPins
from dynpin.hosts import is_ip_literal
from dynpin.pins import Pin, chain_pins

if TYPE_CHECKING:
    from dynpin.deploy.site import SiteInventory

__all__ = ["check"]


def check(
    url: Annotated[
        str | None,
        typer.Argument(
            help="An https URL, or a host name; without it, the first host of the inventory.", show_default=False
        ),
    ] = None,
    keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--key", help="A key of the inventory (certificate, CSR, public key); every pin must be one of these."
        ),
    ] = None,
    inventory: InventoryOption = None,
    history: Annotated[
        Path | None, typer.Option("--history", help="The rotation's history: who is locked out by what is deployed?")
    ] = None,
    subdomains: Annotated[
        list[str] | None, typer.Option("--subdomain", help="A subdomain that includeSubDomains will hit. Repeatable.")
    ] = None,
    paths: Annotated[list[str] | None, typer.Option("--path", help="Another path to look at. Repeatable.")] = None,
    addresses: Annotated[
        list[str] | None, typer.Option("--address", help="Look at this address, not at those in the DNS. Repeatable.")
    ] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="Trust these roots (PEM) and no others.")] = None,
    http_port: Annotated[
        int | None, typer.Option("--http-port", help="Look at plain http on this port too, where no header may be.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Ask the report endpoint for a sign of life.")
    ] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each connection.", min=0.01)] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was seen and found as JSON.")] = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="Print the findings as SARIF 2.1.0, for CI.")] = False,
    fail_on: FailOnOption = "warning",
    now: NowOption = None,
) -> None:
    """Look at a live site from every side, and say what is wrong with its pinning.

    All its addresses; the header on a page, on an error and on a static file; the served and the validated chain;
    the report endpoint; the subdomains that includeSubDomains hits; with an inventory, whether the header is the one
    that it makes. Exit code 1 where a fault is found.
    """
    if keys and inventory is not None:
        fail("give --key or --inventory, not both")
    described = site_of(inventory, is_named_otherwise=bool(keys))
    kept, at = None if history is None else read_history(history, inventory), moment(now)
    site = _site(url or _named_by(described), addresses, ca, timeout)
    site = replace(
        site,
        paths=(*site.paths, *map(request_target, paths or ())),
        http_port=http_port,
        subdomains=tuple(map(host_name, subdomains or ())),
        probes_report_uri=probe,
    )
    held = None if not keys else tuple(str(_pin_of(key)) for key in keys)
    if described is not None:
        held = tuple(map(str, described.pins))
    look = look_at(site, Circumstances(held_keys=held), lambda step: say(f"looking at {step}", err=True))
    if not look.responses:
        fail(f"{site.host} does not answer: {'; '.join(look.silent) or 'no address'}")
    for line in look.silent:
        say(f"silent: {line}", err=True)
    results = _results(look, kept, at)
    lacking = () if described is None else _lacking(look, described)
    strange = {} if described is None else _strange(look, described)
    if as_sarif:
        typer.echo(json.dumps(sarif(results), indent=2))
    elif as_json:
        answer = _as_json(site, look, results)
        if described is not None:
            answer["lacking"] = list(lacking)
            answer["not_deployed"] = strange
        typer.echo(json.dumps(answer, indent=2))
    else:
        _show(look, results)
    for pin in lacking:
        say(
            f"dynpin: {site.host} does not send {pin} in its {described.header.name if described else 'header'}, "
            "though the inventory has it: clients that come by now refuse that key on the day it is deployed",
            err=True,
        )
    for address, pin in strange.items():
        say(
            f"dynpin: {site.host} shows {pin} at {address}, which is no deployed key of the inventory: has the server "
            "loaded the certificate that stands there? A header about a key that is not served locks clients out",
            err=True,
        )
    if not look.fields:
        finding(f"{site.host} sends no pinning header")
    if lacking or strange or fails([found for _, found in results], fail_on):
        finding()


def _named_by(described: SiteInventory | None) -> str:
    if described is None:
        fail("name the site: an https URL or a host name, or an --inventory that has one")
    return described.hosts[0]


def _site(url: str, addresses: list[str] | None, ca: Path | None, timeout: float) -> Site:
    host, port, target = https_url(url if "://" in url else f"https://{url}")
    if is_ip_literal(host):
        fail(f"{host} is an address: pins belong to host names (RFC 7469 §2.3.3). Name the host; --address says where")
    context = _context(ca)
    try:
        found = tuple(map(host_name, addresses)) if addresses else addresses_of(host, port)
    except OSError as error:
        fail(
            f"{host} has no address that is known here: {error.strerror or error}. Is it spelt right, and is there a "
            "network? --address looks at one without asking the DNS"
        )
    return Site(host, port, found, context, target, timeout=timeout, by_dns=not addresses)


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        fail(f"{ca} holds no root certificate: --ca takes them as PEM")
    except OSError as error:
        fail(f"{ca}: {error.strerror or error}")


def _pin_of(path: Path) -> Pin:
    try:
        return Pin.from_file(path)
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except DynpinError as error:
        fail(str(error))


def _results(look: Look, kept: History | None, now: float) -> list[tuple[HeaderField, Finding]]:
    results: dict[tuple[str, str, str], tuple[HeaderField, Finding]] = {}
    recorded = None if kept is None else _recorded_name(kept, now)
    # A report-only field beside the one that is enforced is no change of the mode.
    has_changed = recorded is not None and all(each.name.lower() != recorded.lower() for each in look.fields)
    for each in look.fields:
        circumstances = each.circumstances
        if has_changed:
            circumstances = replace(circumstances, previous_name=recorded)
        if kept is not None and circumstances.chain:
            shown = [Pin.from_base64(text) for text in circumstances.chain]
            refused = guard(kept, shown, now).locked_out
            if refused:
                worst = max(refused, key=lambda policy: policy.until)
                age = 0.0 if worst.last_at is None else now - worst.last_at
                circumstances = replace(circumstances, previous_header=str(worst.header), previous_header_age_s=age)
        for found in lint_header(each.value, name=each.name, circumstances=circumstances):
            # Several nodes with one fault are one finding.
            results.setdefault((each.name, found.fault, found.message), (each, found))
    return list(results.values())


def _recorded_name(kept: History, now: float) -> str | None:
    """The name of the field that the site sends by its history; None where it sends none."""
    sent = [event.header for event in kept.events if isinstance(event, Published) and event.at <= now]
    return sent[-1].name if sent and sent[-1] is not None else None


def _lacking(look: Look, site: SiteInventory) -> tuple[str, ...]:
    """The pins of the inventory that some response does not carry."""
    lacking = list(site.pins)
    fields = [each.value or "" for each in look.fields if each.name.lower() == site.header.name.lower()]
    if fields:
        sent = [_pins_in(value, site.header.report_only) for value in fields]
        lacking = [pin for pin in site.pins if any(pin not in pins for pins in sent)]
    return tuple(map(str, lacking))


def _strange(look: Look, site: SiteInventory) -> dict[str, str]:
    """By address, the leaf of a chain that holds none of the keys that the inventory calls deployed."""
    deployed = {chain[0] for chain in site.chains}
    shown = {response.address: chain_pins(response.served) for response in look.responses if response.served}
    return {address: str(pins[0]) for address, pins in shown.items() if pins and deployed.isdisjoint(pins)}


def _pins_in(value: str, report_only: bool) -> tuple[Pin, ...]:
    try:
        return PublicKeyPins.parse(value, report_only=report_only).pins
    except InvalidHeader:
        return ()  # clients ignore it, and its pins with it


def _as_json(site: Site, look: Look, results: list[tuple[HeaderField, Finding]]) -> dict[str, object]:
    return {
        "host": site.host,
        "port": site.port,
        "silent": look.silent,
        "responses": [
            {
                "address": response.address,
                "scheme": response.scheme,
                "path": response.path,
                "status": response.status,
                "verified": response.is_verified,
                "validated_chain": [str(pin) for pin in chain_pins(response.validated)],
                "served_chain": [str(pin) for pin in chain_pins(response.served)],
                "headers": {
                    name: value for name, value in response.headers if name.lower().startswith("public-key-pins")
                },
            }
            for response in look.responses
        ],
        "findings": [as_dict(each, found) for each, found in results],
    }


def _show(look: Look, results: list[tuple[HeaderField, Finding]]) -> None:
    for response in look.responses:
        has = any(name.lower().startswith("public-key-pins") for name, _ in response.headers)
        chain = "" if response.is_verified or response.scheme == "http" else "  the chain does not verify"
        line = f"{response.address:<16} {response.scheme:<5} {response.status} {response.path}"
        say(f"{line}  {'header' if has else 'no header'}{chain}")
    say("")
    if not look.fields:
        return
    # Each field once: the first of the nodes that send it speaks for them.
    shown = list({(each.name, each.value): each for each in reversed(look.fields)}.values())[::-1]
    first = {(each.name, each.value): each for each in shown}
    from dynpin.cli.findings import show_findings  # noqa: PLC0415 - beside what is shown

    show_findings(shown, [(first[each.name, each.value], found) for each, found in results])
