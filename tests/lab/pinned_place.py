"""A site that pins, an attacker for its name, and the folder of a proxy in front of it."""

from __future__ import annotations

from pathlib import Path

import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.clientstore import PinStore
from dynpin.lab.network import TLSServer
from tests.clientstore.world import HOST, leaf_pin

from .proxies import command

__all__ = ["PAGE", "FallibleSite", "Place"]

# It contains an icon, so that a browser does not request one later.
PAGE = b"<!doctype html><title>bank</title><link rel=icon href=data:,><p>balance"


class FallibleSite(TLSServer):
    """A site that can end its open connections."""

    def hang_up(self) -> None:
        """End all connections, as if the client had left the network."""
        self.end_connections()
        self.wait_idle()


class Place:
    """`site` sends its pins; `attack` makes it show a trusted certificate from another authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.honest = trustme.CA(organization_unit_name="Bank's authority")
        self.rogue = trustme.CA(organization_unit_name="An authority that a hotspot has won over")
        (folder / "roots.pem").write_bytes(self.honest.cert_pem.bytes() + self.rogue.cert_pem.bytes())
        self.certificate, backup = self.honest.issue_cert(HOST), self.honest.issue_cert(HOST)
        self.pins = tuple(leaf_pin(one) for one in (self.certificate, backup))
        self.site = FallibleSite(self.certificate, body=PAGE)
        self.say()

    @property
    def authority_pin(self) -> Pin:
        """The pin of the site's authority."""
        return Pin.from_certificate(self.honest.cert_pem.bytes())

    def say(self, **terms: object) -> None:
        """Make the site send a policy."""
        header = PublicKeyPins(self.pins, max_age=3600, **terms)  # type: ignore[arg-type]
        self.site.headers = [("Content-Type", "text/html"), ("Public-Key-Pins", str(header))]

    def attack(self, name: str | None = None) -> None:
        """Let somebody else answer for the site's name."""
        self.site.show(self.rogue.issue_cert(HOST, common_name=name))
        self.site.hang_up()
        self.site.received = b""

    def arguments(self, bin_folder: Path, *options: str) -> list[str]:
        leads = f"{HOST}:{self.site.port}:127.0.0.1"
        return command(bin_folder, self.folder, "--resolve", leads, *options)

    def store(self) -> PinStore:
        return PinStore(self.folder / "pins")
