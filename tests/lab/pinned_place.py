"""A site that pins, what its name may become, and the folder of a proxy in front of it."""

from __future__ import annotations

from pathlib import Path

import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.clientstore import PinStore
from dynpin.lab.network import TLSServer
from tests.clientstore.world import HOST, leaf_pin

from .proxies import command

__all__ = ["PAGE", "FallibleSite", "Place"]

# With an icon of its own, so that a browser does not ask for one later on.
PAGE = b"<!doctype html><title>bank</title><link rel=icon href=data:,><p>balance"


class FallibleSite(TLSServer):
    """A site that ends what connections it has when it is told to."""

    def hang_up(self) -> None:
        """Be gone, as a site is whose network is left."""
        self.end_connections()
        self.wait_idle()


class Place:
    """`site` sends its pins; `attack` has it show another authority's certificate for its name, which is trusted."""

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
        """Have the site send a policy."""
        header = PublicKeyPins(self.pins, max_age=3600, **terms)  # type: ignore[arg-type]
        self.site.headers = [("Content-Type", "text/html"), ("Public-Key-Pins", str(header))]

    def attack(self, name: str | None = None) -> None:
        """Have somebody else answer by the site's name."""
        self.site.show(self.rogue.issue_cert(HOST, common_name=name))
        self.site.hang_up()
        self.site.received = b""

    def arguments(self, bin_folder: Path, *options: str) -> list[str]:
        leads = f"{HOST}:{self.site.port}:127.0.0.1"
        return command(bin_folder, self.folder, "--resolve", leads, *options)

    def store(self) -> PinStore:
        return PinStore(self.folder / "pins")
