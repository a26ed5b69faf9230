"""`dynpin lab proxy`: pins for any program behind a proxy, a browser included."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Annotated, Literal

import typer
from platformdirs import user_data_path

from dynpin.cli.errors import fail, lacking
from dynpin.cli.printing import say
from dynpin.cli.stores import StoreOption
from dynpin.clientstore import PinStore
from dynpin.counts import counted
from dynpin.deploy.trust import trusting
from dynpin.pins import Pin

__all__ = ["proxy"]


def proxy(
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="HOST:PORT", help="The address for programs. Port 0 takes a free one."),
    ] = "127.0.0.1:8080",
    store: StoreOption = None,
    ca_dir: Annotated[
        Path | None,
        typer.Option(
            "--ca-dir",
            metavar="FOLDER",
            help="The folder of the proxy's own authority. The default is one in your data folder.",
        ),
    ] = None,
    upstream_ca: Annotated[
        Path | None,
        typer.Option(
            "--upstream-ca", help="Verify sites with these roots (PEM) and no others. The default is certifi's."
        ),
    ] = None,
    private_roots: Annotated[
        Literal["enforce", "bypass"],
        typer.Option(help="bypass: the browsers' rule, no Pin Validation for a chain that ends in a private root."),
    ] = "enforce",
    report: Annotated[
        Literal["all", "same-domain", "off"],
        typer.Option(help="Which violation reports are sent: all, those within the pinned host's own domain, or none."),
    ] = "all",
    resolve: Annotated[
        list[str] | None,
        typer.Option(
            "--resolve",
            metavar="HOST:PORT:ADDRESS",
            help="Connect to a host at this ADDRESS or ADDRESS:PORT. Repeatable.",
        ),
    ] = None,
) -> None:
    """Note and enforce pins for every program that uses this proxy, until Ctrl-C.

    The proxy ends TLS, so programs must trust its authority. The pins are checked against the sites' own certificates,
    before a byte of a request is sent. A refused program gets the reason. It needs mitmproxy: the extra "proxy", in an
    environment of its own.

    Example: dynpin lab proxy --listen 127.0.0.1:8080
    """
    host, port = _address(listen)
    try:
        from dynpin.lab.proxy.addon import PinningAddon  # noqa: PLC0415 - the extra may be missing, and takes a second
        from dynpin.lab.proxy.names import Resolved, resolved_names  # noqa: PLC0415
        from dynpin.lab.proxy.server import AUTHORITY, serve  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        lacking("the proxy, in an environment of its own,", missing.name, "proxy")
    answers = [Resolved.parse(text) for text in resolve or ()]
    folder = ca_dir or user_data_path("dynpin", appauthor=False) / "proxy-ca"
    _log_to_stderr()

    def on_listening(address: str, at: int) -> None:
        _welcome(f"{f'[{address}]' if ':' in address else address}:{at}", pins, folder / AUTHORITY)

    with PinStore(store) as pins, resolved_names(answers):
        # The context verifies an https report-uri. The file is read now, so that a bad one ends the command.
        context = trusting(upstream_ca)
        addon = PinningAddon(pins, private_roots=private_roots, reporter=report, context=context)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(
                serve(
                    addon,
                    host=host,
                    port=port,
                    authority_folder=folder,
                    upstream_roots=upstream_ca,
                    on_listening=on_listening,
                )
            )
    say("stopped", err=True)


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        fail(f"--listen is HOST:PORT, such as 127.0.0.1:8080, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    # mitmproxy would repeat these messages in fewer words.
    handler.addFilter(lambda record: "dynpin refused it" not in record.getMessage())
    for name, level in (("dynpin", logging.INFO), ("mitmproxy", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)


def _welcome(address: str, pins: PinStore, authority: Path) -> None:
    url = f"http://{address}"
    spki = Pin.from_file(authority)
    for label, text in (
        ("proxy", f"{url}   (Ctrl-C stops it)"),
        ("store", f"{pins.path}   ({counted(len(pins), 'host')})"),
        ("authority", f"{authority}   (trust it in the programs behind, nowhere else: its key lies beside it)"),
        ("curl", f"curl --proxy {url} --cacert {authority} URL"),
        ("chromium", f"chromium --proxy-server={url} --user-data-dir=NEW --ignore-certificate-errors-spki-list={spki}"),
        ("others", f"export HTTPS_PROXY={url} SSL_CERT_FILE={authority}"),
        ("refused", "keys that are not pinned, unverified chains of pinned hosts, HTTP/3"),
    ):
        say(f"{label:<10}{text}", err=True)
