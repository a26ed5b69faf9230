"""`dynpin check URL`: check the pinning of a live site."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.check_output import checked_as_json, has_finding, responses_as_json, show_checked
from dynpin.cli.errors import fail, finding, lacking
from dynpin.cli.lint import FailOnOption, holdings_named
from dynpin.cli.options import (
    DEFAULT_HISTORY,
    CaOption,
    InventoryOption,
    JsonOption,
    NowOption,
    OptionalHistoryOption,
    SarifOption,
    TimeoutOption,
    moment,
)
from dynpin.cli.printing import print_json, say
from dynpin.cli.rotate_site import kept_at, read_history
from dynpin.cli.signed_list import ListOption
from dynpin.cli.urls import HttpsURL, host_name, https_url, request_target
from dynpin.deploy.check import Checked, check_site
from dynpin.deploy.lint import Circumstances
from dynpin.deploy.lint.sarif import sarif
from dynpin.deploy.reach import LIST_URI, LookOptions, site_reached
from dynpin.deploy.rotation.sights import of_another_site
from dynpin.errors import PolicyError
from dynpin.hosts import is_ip_literal
from dynpin.pins import Pin

if TYPE_CHECKING:
    from dynpin.deploy.lint.holdings import Holdings
    from dynpin.deploy.rotation import History

__all__ = ["check"]


def check(
    url: Annotated[
        str | None,
        typer.Argument(
            help="An https URL or a host name. The default is the first host of the inventory.", show_default=False
        ),
    ] = None,
    keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            help="A key of the inventory (certificate, CSR, public key). Every pin must be one of these. Repeatable.",
        ),
    ] = None,
    inventory: InventoryOption = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--all",
            metavar="FOLDER",
            help="Check the site of each dynpin.toml below this folder, using the history beside it.",
            show_default=False,
        ),
    ] = None,
    at_once: Annotated[
        int, typer.Option("--at-once", help="With --all: how many sites to check at the same time.", min=1, max=256)
    ] = 16,
    history: OptionalHistoryOption = None,
    subdomains: Annotated[
        list[str] | None, typer.Option("--subdomain", help="A subdomain that includeSubDomains covers. Repeatable.")
    ] = None,
    paths: Annotated[list[str] | None, typer.Option("--path", help="Another path to check. Repeatable.")] = None,
    addresses: Annotated[
        list[str] | None,
        typer.Option("--address", help="Check this ADDRESS or ADDRESS:PORT instead of those in the DNS. Repeatable."),
    ] = None,
    ca: CaOption = None,
    http_port: Annotated[
        int | None,
        typer.Option("--http-port", help="Also check plain http on this port, which must not send the header."),
    ] = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Check that the report endpoint answers.")] = True,
    signed_list: ListOption = None,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
    as_sarif: SarifOption = False,
    fail_on: FailOnOption = "warning",
    now: NowOption = None,
) -> None:
    r"""Look at a live site from every side, and say what is wrong with its pinning.

    It checks all addresses, and the nodes that dynpin.toml names in \[site] nodes: the header on a page, an error and a
    static file, the served and the validated chain, the report endpoint, and the subdomains that includeSubDomains
    covers. With an inventory, the header must be that of the inventory. With --list, it compares the signed list of
    pins with the header, and shows what expires when. The exit code is 1 if there is a fault.

    Example: dynpin check https://www.example.com/ --inventory dynpin.toml
    """
    if as_json and as_sarif:
        fail("give --json or --sarif: both would be on stdout")
    options = LookOptions(
        ca=ca,
        addresses=tuple(addresses or ()),
        paths=tuple(map(request_target, paths or ())),
        http_port=http_port,
        subdomains=tuple(map(host_name, subdomains or ())),
        probes_report_uri=probe,
        timeout=timeout,
        signed_list=_list_at(signed_list),
    )
    if folder is not None:
        if url or keys or inventory is not None or history is not None or as_sarif:
            fail(
                "--all reads each site from its own dynpin.toml: leave out the URL, --key, --inventory, --history and "
                "--sarif"
            )
        from dynpin.cli.check_all import check_folder  # noqa: PLC0415 - only --all needs it

        check_folder(folder, options, at_once=at_once, as_json=as_json, fail_on=fail_on, now=now)
        return
    at = moment(now)
    if keys and inventory is not None:
        fail("name --key or --inventory, not both")
    holdings = holdings_named(inventory, is_named_otherwise=bool(keys), now=at)
    target = _target(url, holdings)
    known = Circumstances(held_keys=None if not keys else tuple(str(Pin.from_file(key)) for key in keys))
    recorded = _recorded(history, inventory, holdings)
    site = site_reached(
        target.host, target.port, target.target, None if holdings is None else holdings.inventory, options
    )
    checked = check_site(
        site,
        holdings,
        known=known,
        history=recorded,
        now=at,
        say=lambda step: say(f"looking at {step}", err=True),
        signed_list=options.signed_list,
    )
    if checked.silence:
        fail(checked.silence)
    checked = replace(checked, remarks=(*checked.remarks, *_disagreeing(holdings), *_hint(checked, holdings)))
    for line in checked.silent:
        say(f"silent: {line}", err=True)
    if as_sarif:
        print_json(sarif(checked.results))
    elif as_json:
        print_json({**responses_as_json(checked), **checked_as_json(checked)})
    else:
        show_checked(checked)
    for remark in checked.remarks:
        say(f"dynpin: {remark}", err=True)
    if not checked.has_header:
        begin = f"; dynpin init {site.host}{'' if site.port == 443 else f':{site.port}'} begins to pin it"
        finding(f"{site.host} sends no pinning header{begin if holdings is None else ''}")
    if has_finding(checked, fail_on):
        finding()


def _list_at(place: str | None) -> str | None:
    """The place of the signed list. Ends the command if there is none."""
    if place is None:
        return None
    if place != LIST_URI and not Path(place).is_dir():
        fail(f"there is no folder {place}: name the folder that `dynpin recovery publish` wrote, or {LIST_URI}")
    try:
        import_module("dynpin.deploy.recovery")  # python-tuf, only for --list
    except ModuleNotFoundError as error:
        lacking("--list", error.name, "recovery")
    return place


def _recorded(file: Path | None, inventory: Path | None, holdings: Holdings | None) -> History | None:
    """The history from the option, or from the shared state of the nodes."""
    site = None if holdings is None else holdings.inventory
    if file is not None:
        history = read_history(file, inventory)
        other = None if site is None else of_another_site(history, file, site)
        return history if other is None else fail(f"{other}, with --history and --inventory")
    if site is None or site.state is None:
        return None
    try:
        if not kept_at(DEFAULT_HISTORY, site).exists():
            return None
    except PolicyError:
        return None  # the collector is away: a remark says so, and the live site is checked without the history
    return read_history(DEFAULT_HISTORY, site.path)


def _disagreeing(holdings: Holdings | None) -> tuple[str, ...]:
    """How the nodes disagree, from their shared state. Also prints the line of each node."""
    if holdings is None or holdings.inventory.state is None:
        return ()
    from dynpin.deploy.agreement import agreement  # noqa: PLC0415 - only a shared state needs it

    lines, wrong = agreement(holdings.inventory)
    for line in lines:
        say(line, err=True)
    return wrong


def _hint(checked: Checked, holdings: Holdings | None) -> tuple[str, ...]:
    """Advice for nodes that differ since each has its own files."""
    differ = any(found.fault == "header-differs-between-nodes" for _, found in checked.results)
    if holdings is None or holdings.inventory.state is not None or not differ:
        return ()
    return (
        f"each node of {checked.site.host} keeps its ramp and its last header in its own files: name a "
        f'collector in {holdings.name}, [site] state = "https://…", and they agree',
    )


def _target(url: str | None, holdings: Holdings | None) -> HttpsURL:
    """The site to check. If the inventory does not name the host, its keys are not used for the check."""
    if url is None:
        host = None if holdings is None else holdings.host
        if host is None:
            fail("name the site: an https URL or a host name, or an --inventory that has one in hosts")
        return HttpsURL(host, 443, "/")
    target = https_url(url if "://" in url else f"https://{url}")
    if is_ip_literal(target.host):
        fail(
            f"{target.host} is an address: pins belong to host names (RFC 7469 §2.3.3). Name the host; --address says "
            "where"
        )
    if holdings is not None and not holdings.answers(target.host):
        hosts = ", ".join(holdings.inventory.hosts) or "none"
        fail(
            f"{target.host} is not in hosts of {holdings.name} ({hosts}), so it is not checked against the keys of "
            "that file. Name the inventory of this host with --inventory, or add the host to hosts; to look at it "
            "without an inventory, run the command in a folder that has no dynpin.toml"
        )
    return target
