"""Deploy hooks for ACME clients: what was issued is installed only when the guard lets it pass.

certbot runs every hook even where one before it failed, and a server that reads certbot's own folder picks the new
key up at its next restart, whatever a hook said. So the hook is what installs: the server reads a folder of its own.
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
    """Where an ACME client tells its hook the new chain and key, and how the hook is named to it."""

    chain: str
    key: str
    use: str


ACME_CLIENTS: Mapping[str, AcmeClient] = {
    "certbot": AcmeClient(
        '"$RENEWED_LINEAGE/fullchain.pem"',
        '"$RENEWED_LINEAGE/privkey.pem"',
        "certbot renew --reuse-key --deploy-hook FILE",
    ),
    # lego 4 has the short names, lego 5 the long ones.
    "lego": AcmeClient(
        '"${LEGO_HOOK_CERT_PATH:-$LEGO_CERT_PATH}"',
        '"${LEGO_HOOK_CERT_KEY_PATH:-$LEGO_CERT_KEY_PATH}"',
        "lego … renew --reuse-key --renew-hook FILE; from lego 5 on: lego run … --reuse-key --deploy-hook FILE",
    ),
    "acme.sh": AcmeClient('"$CERT_FULLCHAIN_PATH"', '"$CERT_KEY_PATH"', "acme.sh --issue … --renew-hook FILE"),
}

# Caddy 2 has an event when it has obtained a certificate, and no handler that runs a command: that is a plugin
# (caddy-events-exec). Its command runs when Caddy has already taken the new key into use, so it could stop nothing.
_CADDY = (
    "Caddy runs no command when it has renewed a certificate, except with a plugin, and then it shows the new key "
    "already. Have certbot, lego or acme.sh renew, and let Caddy read the folder of --install (tls DIR/fullchain.pem "
    'DIR/privkey.pem), with --reload "caddy reload --force --config /etc/caddy/Caddyfile"'
)


def deploy_hook(client: str, *, history: Path, inventory: Path | None, folder: Path, reload: str) -> str:
    """The hook as a shell script of one command, which needs no PATH.

    Args:
        client: one of ACME_CLIENTS.
        history: the file of ``dynpin rotate``; with an inventory there need not be one.
        inventory: the ``dynpin.toml`` of the site, or None.
        folder: where the server reads fullchain.pem and privkey.pem.
        reload: the command that makes the server read them again.

    Raises:
        ValueError: for another client.
    """
    if client == "caddy":
        raise ValueError(_CADDY)
    if client not in ACME_CLIENTS:
        raise ValueError(f"{client!r} is no ACME client that is known: there are {', '.join(ACME_CLIENTS)}")
    known = ACME_CLIENTS[client]
    # -P: no module is looked for in the folder in which the client runs its hooks.
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
