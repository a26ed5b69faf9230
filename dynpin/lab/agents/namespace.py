"""Names for a foreign program: a mount namespace of its own, whose /etc/hosts leads them to loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["in_namespace", "missing"]

_TIMEOUT = 300.0
# Nobody needs to be root.
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--")
_WITH_HOSTS = ("sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


@lru_cache(maxsize=1)
def missing() -> str | None:
    """Why there can be none here, in words; None where there can."""
    if shutil.which("unshare") is None:
        return "unshare is not installed: apt-get install util-linux"
    tried = subprocess.run(  # noqa: S603 - its own words
        [*_NAMESPACE, "mount", "--bind", os.devnull, "/etc/hosts"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    return (
        None
        if tried.returncode == 0
        else f"this machine lets nobody mount in a namespace of his own: {tried.stderr.strip()}"
    )


def in_namespace(hosts: str, command: Sequence[str]) -> list[str]:
    """The command that runs another one with this file as its ``/etc/hosts``."""
    return [*_NAMESPACE, *_WITH_HOSTS, hosts, *command]
