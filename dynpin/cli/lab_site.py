"""`dynpin lab site`: a site that pins its keys, and an attacker who answers for its name, to practise with."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, reason_of
from dynpin.cli.printing import say
from dynpin.deploy.keys import new_files
from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host, is_ip_literal
from dynpin.lab.certificates import Authority, Certificate, KeyPair
from dynpin.lab.network import TLSServer

__all__ = ["practice_name", "site"]

_HOUR = 3600


def site(
    host: Annotated[str, typer.Argument(metavar="HOST", help="The name of the site.")] = "localhost",
    port: Annotated[
        int, typer.Option("--port", help="The port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8443,
    attacker_port: Annotated[
        int, typer.Option("--attacker-port", help="The port of the attacker; 0 takes a free one.", min=0, max=65535)
    ] = 8444,
    roots: Annotated[Path, typer.Option("--roots", help="The file to write the two trusted roots to.")] = Path(
        "practice-ca.pem"
    ),
) -> None:
    """Serve a site that pins its keys, and an attacker beside it, until Ctrl-C.

    Both listen on 127.0.0.1 and have a certificate for HOST, from two authorities. The file of --roots has the roots of
    both. It is removed when they stop, and so are the keys.

    Example: dynpin lab site
    """
    name = practice_name(host)
    own, rogue = Authority("practice CA"), Authority("careless CA")
    key, backup = KeyPair(f"{name} key", name), KeyPair(f"{name} backup", name)
    header = PublicKeyPins((key.pin, backup.pin), max_age=_HOUR)
    with contextlib.ExitStack() as stack:
        pinned = stack.enter_context(
            _server(own.issue(name, key), "--port", port, headers=[("Public-Key-Pins", str(header))])
        )
        attacker = stack.enter_context(
            _server(rogue.issue(name, KeyPair("attacker key", "attacker")), "--attacker-port", attacker_port)
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            # Ctrl-C and SIGTERM raise an exception here, which removes the file together with the keys.
            with new_files({roots: (own.pem + rogue.pem, 0o644)}):
                say(f"site      {pinned.url(name)}   pins its key and a backup key for an hour")
                say(f"attacker  {attacker.url(name)}   has another key, with a trusted certificate")
                say(f"trust     {roots}   the roots of both; removed when they stop (Ctrl-C)")
                sys.stdout.flush()
                threading.Event().wait()
        except KeyboardInterrupt:
            pass
    say("stopped", err=True)


def _server(
    certificate: Certificate, option: str, port: int, headers: list[tuple[str, str]] | None = None
) -> TLSServer:
    try:
        return TLSServer(certificate, port=port, headers=headers or [])
    except OSError as error:
        fail(f"127.0.0.1 port {port} cannot be used: {reason_of(error)}; choose another one with {option}")


def practice_name(host: str) -> str:
    """The name of a practice site in its canonical form; the command ends if clients could not pin it."""
    name = canonical_host(host)
    if is_ip_literal(name):
        fail(f"{name} is an IP address, but clients pin only names (RFC 7469 §2.3.3): give a name, such as localhost")
    return name
