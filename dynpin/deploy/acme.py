"""Deploy hooks for ACME clients: what was issued is installed only when the guard lets it pass.

certbot runs every hook even where one before it failed, and a server that reads certbot's own folder picks the new
key up at its next restart, whatever a hook said. So the hook is what installs: the server reads a folder of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ACME_CLIENTS", "AcmeClient", "deploy_hook"]


@dataclass(frozen=True, slots=True)
class AcmeClient:
    """Where an ACME client tells its hook the new chain and key, and how the hook is given to it."""

    chain: str
    key: str
    use: str


ACME_CLIENTS: Mapping[str, AcmeClient] = {
    "certbot": AcmeClient(
        '"$RENEWED_LINEAGE/fullchain.pem"',
        '"$RENEWED_LINEAGE/privkey.pem"',
        "certbot renew --reuse-key --deploy-hook FILE",
    ),
    "lego": AcmeClient('"$LEGO_CERT_PATH"', '"$LEGO_CERT_KEY_PATH"', "lego … renew --reuse-key --renew-hook FILE"),
    "acme.sh": AcmeClient('"$CERT_FULLCHAIN_PATH"', '"$CERT_KEY_PATH"', "acme.sh --issue … --renew-hook FILE"),
}


def deploy_hook(client: str, *, history: Path, inventory: Path | None, folder: Path, reload: str) -> str:
    """The hook as a shell script.

    Args:
        client: one of ACME_CLIENTS.
        history: the file of ``dynpin rotate``; with an inventory there need not be one.
        inventory: the ``dynpin.toml`` of the site, or None.
        folder: where the server reads fullchain.pem and privkey.pem.
        reload: the command that makes the server read them again.

    Raises:
        ValueError: for another client.
    """
    if client not in ACME_CLIENTS:
        raise ValueError(f"{client!r} is no ACME client that is known: there are {', '.join(ACME_CLIENTS)}")
    known = ACME_CLIENTS[client]
    target = shlex.quote(str(folder))
    site = "" if inventory is None else f" --inventory {shlex.quote(str(inventory))}"
    return (
        "#!/bin/sh\n"
        f"# {known.use}\n"
        "# The guard stops a key that clients do not expect: then nothing is installed, and the old one stays.\n"
        "set -eu\n"
        f"dynpin guard {known.chain}{site} --history {shlex.quote(str(history))}\n"
        f"install -m 644 {known.chain} {target}/fullchain.pem\n"
        f"install -m 600 {known.key} {target}/privkey.pem\n"
        f"{reload}\n"
    )
