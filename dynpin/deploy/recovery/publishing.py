"""Publish the files that clients read, compare them with those that are published, or copy those back.

One file, the timestamp, decides what clients see. It is written after the files that it leads to, and a new root that
needs it comes last. So a process may be killed at any moment: clients have the old list or the new one, and the same
command continues.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Root, Targets  # pyright: ignore[reportPrivateImportUsage]

from dynpin.errors import RecoveryError

from .repository import Repository
from .signed_files import NAMES, Refused, SignedFiles, Versioned, is_signed, list_name
from .storage import changing, make_folder, move_aside, write

__all__ = ["catch_up", "compare", "differing", "publish", "refuse_unpublished", "strays"]

_Read = TypeVar("_Read")


def compare(repository: Repository, target: Path, *, replaced: Collection[str] = ()) -> int:
    """Compare the operator's folder with the published one, before anything is signed or written.

    Clients that have seen a version refuse all lower ones, and a different one with the same number. Only files signed
    by keys in the roots count: somebody who can write there may put any file there.

    Args:
        repository: the operator's folder.
        target: the folder that is served; it may be missing.
        replaced: the roles that get new keys now. Signatures of their old keys no longer count.

    Returns:
        the version of the timestamp there; the next one must be higher.

    Raises:
        Refused: if another root is published there, a newer state, or a different file with the same version.
        RecoveryError: if a file cannot be read.
    """
    theirs, ours = SignedFiles(target), repository.files
    if theirs.file("root", 1).is_file():  # if it is lost, what is beside it counts all the same
        _refuse_another_root(ours, theirs)
    names = repository.waiting.coming_root()
    way_out = _CATCH_UP.format(target=target, folder=repository.folder)
    for role, version, there in _counting(theirs, names):
        if role in replaced and role != "root":
            continue
        here, newest = _signed_here(ours, role, version), ours.newest(role)
        if here is None and version > newest:
            raise Refused(
                f"{target} has version {version} of {NAMES[role]}, and {repository.folder} {newest or 'none'}: this "
                "folder is an old copy, and clients refuse what is older than what they have seen. "
                f"{way_out}"
            )
        if here is not None and here != there.signed_bytes:
            raise Refused(
                f"{target} has another version {version} of {NAMES[role]} than {repository.folder}: two copies of this "
                f"folder have signed. Clients that have the one refuse the other. {way_out}"
            )
    return _timestamp_version(theirs, names)


def refuse_unpublished(repository: Repository, target: Path) -> None:
    """Refuse a folder that no list was published to: a misspelt one, or one that is not mounted.

    Raises:
        Refused: if the root is not there.
    """
    if not SignedFiles(target).file("root", 1).is_file():
        raise Refused(
            f"{target} does not publish the root of {repository.folder}: name the folder that does, and check that it "
            "is mounted"
        )


def _refuse_another_root(ours: SignedFiles, theirs: SignedFiles) -> None:
    """Refuse a folder that begins with another root, or with one that is damaged."""
    here, there = ours.file("root", 1), theirs.file("root", 1)
    if _is_same(here, there):
        return
    fault = theirs.first_root_fault()
    if fault is not None:
        raise Refused(f"{fault}. Do: cp {here} {there}")
    if ours.root(1).signed_bytes == theirs.root(1).signed_bytes:
        raise Refused(
            f"{here} and {there} are the same root in other bytes, and headers name the digest of one. Find out which, "
            f"and copy it over the other:  openssl dgst -sha256 -binary {here} | base64"
        )
    raise Refused(f"{theirs.folder} is the place of another list, with another root: choose another folder")


def strays(repository: Repository, target: Path) -> list[str]:
    """The files in the served folder that were not published from here, and that clients may stop at: a sentence each.

    Call :func:`compare` first: what keys have signed that count is a newer state, and not one of these.
    """
    ours, theirs = repository.files, SignedFiles(target)
    return [
        f"{theirs.file(role, version)} was not published from {repository.folder}, and clients may stop at it: remove "
        f"it, and find out who can write to {target}"
        for role in ("root", "targets", "snapshot")
        for version in theirs.versions(role)
        if version > ours.newest(role)
    ]


_CATCH_UP = (
    "Do: dynpin recovery catch-up {target} --in {folder}, which takes over what is published; then sign the list again "
    "if it has changed, and publish"
)


def _counting(theirs: SignedFiles, names: Root | None) -> Iterator[tuple[str, int, Versioned]]:
    """The published files that count: each root of the chain, and the newest snapshot and list with keys in `names`.

    Without `names` only the roots.
    """
    before: Root | None = None
    for version in theirs.versions("root"):
        root = _unless_unreadable(partial(theirs.root, version))
        if root is None or root.signed.version != (1 if before is None else before.version + 1):
            break
        if not root.signed.get_root_verification_result(before, root.signed_bytes, root.signatures).verified:
            break
        yield "root", version, root
        before = root.signed
    for role in ("targets", "snapshot") if names is not None else ():
        for version in reversed(theirs.versions(role)):
            found = _unless_unreadable(partial(theirs.of_role, role, version))
            if (
                found is not None
                and found.signed.version == version
                and names is not None
                and is_signed(names, role, found)
            ):
                yield role, version, found
                break


def _timestamp_version(theirs: SignedFiles, names: Root) -> int:
    timestamp = _unless_unreadable(theirs.timestamp)
    if timestamp is None or not is_signed(names, "timestamp", timestamp):
        return 0
    return timestamp.signed.version


def _signed_here(ours: SignedFiles, role: str, version: int) -> bytes | None:
    """The local file of a version, or None."""
    return ours.of_role(role, version).signed_bytes if ours.file(role, version).is_file() else None


def _unless_unreadable(read: Callable[[], _Read]) -> _Read | None:
    try:
        return read()
    except RecoveryError:
        return None


def catch_up(repository: Repository, target: Path) -> list[Path]:
    """Copy the published files that count, if this folder is an old copy or damaged, or if another copy has signed.

    If both folders have different files with the same name, the published one wins, and the local one is moved away.

    Returns:
        the files that were copied.

    Raises:
        Refused: if another root is published there.
        RecoveryError: if a folder cannot be read or written.
    """
    theirs, ours = SignedFiles(target), repository.files
    refuse_unpublished(repository, target)
    _refuse_another_root(ours, theirs)
    taken: list[Path] = []
    next_version = partial(repository.next_version, "timestamp")
    with changing(repository.folder):
        # The root comes first: it says whose signatures count.
        for role in ("root", "targets", "snapshot"):
            for each, version, there in [*_counting(theirs, None if role == "root" else ours.root().signed)]:
                if each != role:
                    continue
                if isinstance(there.signed, Targets) and not _has_list(ours, there.signed):
                    name = _take_list(theirs, ours, there.signed)
                    if name is None:
                        continue
                    taken.append(name)
                file = ours.file(role, version)
                if (
                    file.is_file()
                    and _unless_unreadable(partial(_signed_here, ours, role, version)) == there.signed_bytes
                ):
                    continue
                # A root that follows a different one than the published root is useless.
                later = ours.versions("root") if role == "root" else [version]
                for number in later if file.is_file() else ():
                    if number >= version:
                        move_aside(ours.file(role, number), repository.superseded)
                write(ours.file(role, version), there.to_bytes())
                taken.append(ours.file(role, version))
        timestamp, version = _unless_unreadable(theirs.timestamp), _timestamp_version(theirs, ours.root().signed)
        if timestamp is not None and version and version >= (_unless_unreadable(next_version) or 0):
            write(ours.file("timestamp"), timestamp.to_bytes())
            taken.append(ours.file("timestamp"))
    return taken


def _has_list(files: SignedFiles, targets: Targets) -> bool:
    return _unless_unreadable(partial(files.pin_list, targets)) is not None


def _take_list(theirs: SignedFiles, ours: SignedFiles, targets: Targets) -> Path | None:
    """Copy the file of a list; None if it is missing, since a file that names it is then useless."""
    if not _has_list(theirs, targets):
        return None
    name = list_name(targets)
    write(make_folder(ours.folder / "targets") / name, (theirs.folder / "targets" / name).read_bytes())
    return ours.folder / "targets" / name


def publish(repository: Repository, target: Path) -> list[str]:
    """Copy the public files to a web server's folder, the timestamp last; returns the files that changed.

    Raises:
        Refused: if files are missing or damaged in either folder, if the published state is newer (see
            :func:`compare`), or if the folder contains the operator's keys.
        RecoveryError: if the folder cannot be written.
    """
    if repository.keys.resolve().is_relative_to(target.resolve()):
        raise Refused(
            f"{target} holds {repository.keys}, and a web server would hand out the keys: name another folder"
        )
    make_folder(target)
    with changing(repository.folder), changing(target):
        for fault in repository.files.faults():
            raise Refused(f"nothing is published: {fault}")
        version, timestamp = compare(repository, target), repository.files.timestamp()
        if timestamp is not None and version > timestamp.signed.version:
            raise Refused(
                f"{target} has version {version} of the timestamp, and {repository.folder} {timestamp.signed.version}, "
                f"which clients refuse. Do: dynpin recovery refresh {target} --in {repository.folder}"
            )
        repository.remember_place(target)  # first, so that `status` knows the place if this process is killed
        changed = _in_order(repository.files, differing(repository, target))
        for name in changed:
            make_folder((target / name).parent)
            write(target / name, (repository.public / name).read_bytes())
        for stray in strays(repository, target):
            raise Refused(stray)
        for fault in SignedFiles(target).faults():
            raise Refused(f"{target} is not whole: {fault}")
    return changed


def differing(repository: Repository, target: Path) -> list[str]:
    """The public files that the target lacks or has in another version, in the order of publishing."""
    names = [path.relative_to(repository.public) for path in repository.public.rglob("*.json")]
    return [
        name.as_posix() for name in sorted(names, key=_rank) if not _is_same(repository.public / name, target / name)
    ]


def _is_same(here: Path, there: Path) -> bool:
    """Whether a served file equals one of ours. One of another size is not read: anybody may have put it there."""
    return there.is_file() and there.stat().st_size == here.stat().st_size and there.read_bytes() == here.read_bytes()


def _in_order(files: SignedFiles, changed: list[str]) -> list[str]:
    """The files to publish, new roots last where clients that have an older one believe all others too."""
    new = [version for version in files.versions("root") if files.file("root", version).name in changed]
    older = range(new[0] - 1, files.newest("root")) if new and new[0] > 1 else ()
    if all(_is_believed(files, files.root(version).signed) for version in older):
        return sorted(changed, key=lambda name: name.endswith(".root.json"))
    return changed


def _is_believed(files: SignedFiles, root: Root) -> bool:
    """Whether clients that have this root believe what the timestamp leads to."""
    timestamp = files.timestamp()
    if timestamp is None:
        return False
    snapshot = files.snapshot(timestamp.signed.snapshot_meta.version)
    targets = files.targets(snapshot.signed.meta["targets.json"].version)
    return (
        is_signed(root, "timestamp", timestamp)
        and is_signed(root, "snapshot", snapshot)
        and is_signed(root, "targets", targets)
    )


def _rank(name: Path) -> tuple[int, str]:
    """The sort key for publishing: a file follows those that it names; root and timestamp are last."""
    order = ("targets", "snapshot", "root", "timestamp")
    role = name.name.split(".")[-2]
    return (order.index(role) if role in order and name.parent == Path() else -1, str(name))
