"""Install a certificate and its key in the server's folder: both new, or both as they were.

If dynpin made the folder, it is a symbolic link to a folder with the two files. The link is replaced in one step, so a
server that starts at any time finds a matching pair. A plain folder allows no such step: its files are replaced one
after the other, and after a failure the old ones are put back.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from dynpin.errors import DynpinError
from dynpin.files import read_file
from dynpin.middleware.policy import holds_private_key, sync_folder

from .candidate import key_fault
from .locks import Busy, locked
from .shell import run_line

__all__ = ["CHAIN", "KEY", "InstallError", "install", "needs_reload", "reload"]

CHAIN, KEY = "fullchain.pem", "privkey.pem"
_MODES = {CHAIN: 0o644, KEY: 0o600}
# This file is in the folder from before the pair is installed until the server has loaded it.
_PENDING = ".reload-pending"


class InstallError(DynpinError):
    """The pair was not installed, and the old one is still there; the message says why."""


def install(chain: bytes, key: bytes, folder: Path, *, reloads: bool) -> bool:
    """Put a certificate chain and its private key, PEM, into a folder as fullchain.pem and privkey.pem.

    The new files have the owner and group of the old ones; the key has mode 0600. All is on the disk on return.

    Args:
        chain: the chain, leaf first.
        key: the private key of the leaf.
        folder: the folder from which the server reads them. If there is none, it becomes a link to a new folder.
        reloads: whether the server must load the pair: :func:`needs_reload` is then True until :func:`reload`.

    Returns:
        Whether anything was changed: False if this very pair is there already.

    Raises:
        InstallError: if nothing was installed.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link in it is not followed
    if holds_private_key(chain):
        raise InstallError(
            f"nothing is installed in {folder}: the chain file has a private key in it too, and every user of this "
            f"machine can read {CHAIN}. Give a file with the certificates alone"
        )
    pair = {CHAIN: chain, KEY: key}
    try:
        with locked(folder.parent, folder.with_name(f"{_prefix(folder)}lock"), "a certificate"):
            if _present(folder) == pair and (folder / KEY).stat().st_mode & 0o077 == 0:
                _clear(folder)
                return False
            if _is_ours(folder) or not os.path.lexists(folder):
                _switch(folder, pair, reloads=reloads)
            else:
                _replace(folder, pair, reloads=reloads)
                _clear(folder)
    except Busy as error:
        raise InstallError(f"nothing is installed in {folder}: {error}") from None
    except OSError as error:
        where = error.filename2 or error.filename or folder
        raise InstallError(
            f"nothing is installed in {folder}: {where}: {error.strerror or error}. Check that there is "
            "room, and that this user may write there"
        ) from None
    return True


def needs_reload(folder: Path) -> bool:
    """Whether there is an installed pair that the server was not yet told to load."""
    return (folder / _PENDING).exists()


def reload(command: str, folder: Path, *, seconds: float = 60) -> str | None:
    """Run the shell command that makes the server load the folder. None if it succeeded, else the failure.

    The command is ended after `seconds`; see :func:`~dynpin.deploy.shell.run_line`.
    """
    failed = run_line(command, seconds=seconds)
    if failed is None:
        (folder / _PENDING).unlink(missing_ok=True)
    return failed


def _present(folder: Path) -> dict[str, bytes]:
    return {name: read_file(folder / name) for name in _MODES if (folder / name).exists()}


# -- a link -----------------------------------------------------------------------------------------------------------


def _prefix(folder: Path) -> str:
    return f".{folder.name}-dynpin-"


def _is_ours(folder: Path) -> bool:
    if not folder.is_symlink():
        return False
    target = folder.readlink()
    return target == Path(target.name) and target.name.startswith(_prefix(folder))


def _switch(folder: Path, pair: dict[str, bytes], *, reloads: bool) -> None:
    """Write both files into a new folder, and replace the link in one step."""
    before = folder.resolve() if folder.is_dir() else None
    if before is not None:
        others = sorted({each.name for each in before.iterdir()} - {*_MODES, _PENDING})
        if others:
            raise InstallError(
                f"nothing is installed in {folder}: it is a link that dynpin replaces, and {', '.join(others)} would "
                f"be left behind. Move what is not {CHAIN} or {KEY} elsewhere"
            )
    made = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
    try:
        for name, data in pair.items():
            _write(made / name, data, name, folder)
        made.chmod(0o755 if before is None else before.stat().st_mode & 0o777)
        _own(made, before)
        _check(made / CHAIN, made / KEY, folder)
        if reloads:
            (made / _PENDING).touch()
        sync_folder(made)
        link = made.with_name(f"{made.name}.link")
        link.symlink_to(made.name)
        try:
            link.replace(folder)
        except BaseException:
            link.unlink(missing_ok=True)
            raise
    except BaseException:
        shutil.rmtree(made)
        raise
    sync_folder(folder.parent)
    # Keep the old folder, for a person who wants to go back.
    pattern = re.compile(re.escape(_prefix(folder)) + "[a-z0-9_]{8}")
    for each in folder.parent.iterdir():
        if pattern.fullmatch(each.name) and each not in (made, before and folder.parent / before.name):
            shutil.rmtree(each, ignore_errors=True)


# -- a plain folder ---------------------------------------------------------------------------------------------------


def _replace(folder: Path, pair: dict[str, bytes], *, reloads: bool) -> None:
    """Write both files beside the old ones, and rename them, the key first. An exception puts the old ones back."""
    present = _present(folder)
    aside = Path(tempfile.mkdtemp(prefix=".dynpin-", dir=folder))
    pending = folder / _PENDING
    was_pending = pending.exists()
    done: list[str] = []
    try:
        for name, data in pair.items():
            _write(aside / name, data, name, folder)
            if name in present:
                _write(aside / f"{name}.before", present[name], name, folder)
        _check(aside / CHAIN, aside / KEY, folder)
        if reloads:
            pending.touch()
        try:
            for name in (KEY, CHAIN):
                # First the note, then the change: an exception from a signal handler may come between them.
                done.append(name)
                (aside / name).replace(folder / name)
            sync_folder(folder)
        except BaseException:
            for name in done:
                if name in present:
                    (aside / f"{name}.before").replace(folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
            if not was_pending:
                pending.unlink(missing_ok=True)
            sync_folder(folder)
            raise
    finally:
        shutil.rmtree(aside)


def _clear(folder: Path) -> None:
    """Remove the private keys that a killed process left in the folder. The caller has the lock."""
    for each in folder.iterdir():
        if re.fullmatch(r"\.dynpin-[a-z0-9_]{8}", each.name):
            shutil.rmtree(each, ignore_errors=True)


# -- files ------------------------------------------------------------------------------------------------------------


def _write(path: Path, data: bytes, name: str, folder: Path) -> None:
    """Write a new file to the disk, with the mode of its kind and the owner of the present one."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        path.chmod(_MODES[name])
        _own(path, folder / name)
        os.fsync(file.fileno())


def _own(path: Path, like: Path | None) -> None:
    """Give a file the owner and group of another one, if this user may."""
    if like is None or not like.exists() or not hasattr(os, "chown"):
        return
    wanted = like.stat()
    with contextlib.suppress(PermissionError):
        os.chown(path, wanted.st_uid, wanted.st_gid)


def _check(chain: Path, key: Path, folder: Path) -> None:
    fault = key_fault(chain, key)
    if fault is not None:
        raise InstallError(f"nothing is installed in {folder}: {fault.message}")
