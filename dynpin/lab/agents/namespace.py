"""Names for a foreign program: a mount namespace with its own /etc/hosts, which maps them to loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["in_namespace", "missing"]

_TIMEOUT = 300.0
# This works without root.
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--")
_WITH_HOSTS = ("sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


@lru_cache(maxsize=1)
def missing() -> str | None:
    """Why this machine cannot do it, in words; None if it can."""
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
        else f"this machine does not allow a user to mount in a namespace: {tried.stderr.strip()}"
    )


def in_namespace(hosts: str, command: Sequence[str]) -> list[str]:
    """A command that runs the given command with this file as its ``/etc/hosts``."""
    return [*_NAMESPACE, *_WITH_HOSTS, hosts, *command]
