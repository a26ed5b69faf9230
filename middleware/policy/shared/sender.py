"""The sender of a node's announcements: a random number in a file, so that two nodes with one name are noticed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import tempfile
from pathlib import Path

from dynpin.errors import PolicyError
from dynpin.files import read_file

from ..atomic import sync_folder
from .document import Sender

__all__ = ["sender_of"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SECRET = re.compile(r"[0-9a-f]{32}")


def sender_of(copy: Path, boot: Path = _BOOT) -> Sender:
    """The sender for all processes that share this copy on this machine, since the machine started.

    A copied folder or image has the same number on another machine or in another container. So the number is hashed
    with the machine's boot id, and with the disk and the inode of the file.

    Args:
        copy: the file of the local copy. The file of the number has the same name with ``.id``.
        boot: the file of the system's boot id.

    Raises:
        PolicyError: if the number can be neither read nor written.
    """
    file = copy.with_suffix(".id")
    try:
        try:
            secret = _read(file)
        except FileNotFoundError:
            _create(file)
            secret = _read(file)
        place = file.stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise PolicyError(
            f"{file}, which identifies this node to the others, cannot be used ({why}). The server must be able to "
            "write to its folder. If the file is damaged, remove it"
        ) from None
    started = ""
    with contextlib.suppress(OSError):  # only Linux has it; on other systems a copied file is not noticed
        started = boot.read_text()
    machine = re.sub("[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip("._-")[:63]
    identity = hashlib.sha256(f"{secret} {started} {place.st_dev} {place.st_ino}".encode()).hexdigest()[:16]
    return Sender(machine=machine or "unknown", identity=identity)


def _read(file: Path) -> str:
    text = read_file(file).decode("ascii").strip()
    if _SECRET.fullmatch(text) is None:
        raise ValueError("it does not hold 32 hexadecimal digits")
    return text


def _create(file: Path) -> None:
    """Make the file atomically. If another process was faster, its number stays."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as new:
            new.write(f"{secrets.token_hex(16)}\n")
            new.flush()
            os.fsync(new.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, file)
    finally:
        Path(name).unlink()
    sync_folder(file.parent)
