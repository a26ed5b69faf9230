"""Deploy hooks for ACME clients: a new certificate is installed only if the guard allows it.

certbot runs all hooks even if an earlier one failed. A server that reads certbot's own folder loads the new key at its
next restart, whatever a hook said. So the hook itself installs the files, in a folder of the server's own.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ACME_CLIENTS", "AcmeClient", "deploy_hook"]


@dataclass(frozen=True, slots=True)
class AcmeClient:
    """How an ACME client passes the new chain and key to its hook, and how it gets the hook's name."""

    chain: str
    key: str
    use: str


ACME_CLIENTS: Mapping[str, AcmeClient] = {
    "certbot": AcmeClient(
        '"${RENEWED_LINEAGE:?certbot sets it}/fullchain.pem"',
        '"$RENEWED_LINEAGE/privkey.pem"',
        "certbot renew --reuse-key --deploy-hook FILE",
    ),
    # lego 4 has the short option names, lego 5 the long ones.
    "lego": AcmeClient(
        '"${LEGO_HOOK_CERT_PATH:-${LEGO_CERT_PATH:?lego sets it}}"',
        '"${LEGO_HOOK_CERT_KEY_PATH:-$LEGO_CERT_KEY_PATH}"',
        "lego … renew --reuse-key --renew-hook FILE; from lego 5 on: lego run … --reuse-key --deploy-hook FILE",
    ),
    "acme.sh": AcmeClient(
        '"${CERT_FULLCHAIN_PATH:?acme.sh sets it}"', '"$CERT_KEY_PATH"', "acme.sh --issue … --renew-hook FILE"
    ),
}

# Caddy 2 has an event after it has obtained a certificate, but no handler for it that runs a command; that needs a
# plugin (caddy-events-exec). The command runs when Caddy already uses the new key, so it could prevent nothing.
_CADDY = (
    "Without a plugin Caddy runs no command after a renewal, and with one it already shows the new key. Let certbot, "
    "lego or acme.sh renew, and let Caddy read the folder of --install (tls DIR/fullchain.pem "
    'DIR/privkey.pem), with --reload "caddy reload --force --config /etc/caddy/Caddyfile"'
)


def deploy_hook(client: str, *, history: Path, inventory: Path | None, folder: Path, reload: str) -> str:
    """The hook as a shell script with one command, which needs no PATH.

    Args:
        client: one of ACME_CLIENTS.
        history: the file of ``dynpin rotate``; it is optional if there is an inventory.
        inventory: the ``dynpin.toml`` of the site, or None.
        folder: the folder from which the server reads fullchain.pem and privkey.pem.
        reload: the command that makes the server read them again.

    Raises:
        ValueError: for another client.
    """
    if client == "caddy":
        raise ValueError(_CADDY)
    if client not in ACME_CLIENTS:
        raise ValueError(f"{client!r} is not a known ACME client: there are {', '.join(ACME_CLIENTS)}")
    known = ACME_CLIENTS[client]
    # -P: do not import modules from the folder in which the client runs its hooks.
    command = [sys.executable, "-P", "-m", "dynpin", "guard"]
    site = [] if inventory is None else ["--inventory", str(inventory)]
    options = [*site, "--history", str(history), "--install", str(folder), "--reload", reload, "--skip-other-sites"]
    return (
        "#!/bin/sh\n"
        f"# {known.use}\n"
        "# dynpin installs the new certificate and key if clients accept them. Else the old ones stay, and it exits "
        "with 1.\n"
        f"exec {shlex.join(command)} {known.chain} --key {known.key} {shlex.join(options)}\n"
    )
