"""Verify a signed list with The Update Framework's own client. This module repeats none of its rules.

The trusted files come in and go out as bytes, so that they can be stored in one transaction with the pins.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp  # pyright: ignore[reportPrivateImportUsage]
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig  # pyright: ignore[reportPrivateImportUsage]

from dynpin.errors import InvalidPinFile, RecoveryError
from dynpin.pin_list import LONGEST_LIST, PIN_LIST, PinList
from dynpin.recovery import FIRST_ROOT, Recovery

__all__ = ["LONGEST_FILE", "Verified", "verify"]

# The most bytes that are read of one metadata file.
LONGEST_FILE = 64_000
# The most bytes of all roots together: some hundred roots of fifteen keys. Otherwise a chain of roots could be endless.
_MOST_KEPT = 1_000_000
# The largest integer in SQLite.
_LAST_VERSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of one look.

    Attributes:
        files: the files that are trusted now, by name; store them even if there is no list.
        list_version: the version of the list; 0 if there is none.
        pins: the list, or None if it cannot be accepted.
        problem: why not.
        dated: the date of a list with a date instead of a version, RFC 3339.
    """

    files: Mapping[str, bytes]
    list_version: int = 0
    pins: PinList | None = None
    problem: str | None = None
    dated: str | None = None


def verify(recovery: Recovery, files: Mapping[str, bytes], fetcher: FetcherInterface, now: float) -> Verified:
    """Fetch and verify the list of a root.

    Args:
        recovery: the noted root, and the URI of its files.
        files: the files that TUF's client trusts so far; empty at first.
        fetcher: reads the files.
        now: seconds since the epoch, UTC. TUF itself uses the system's clock. A list that has expired by `now` is not
            accepted either.

    Raises:
        RecoveryError: if version 1 of the root cannot be read, or is not the noted one.
    """
    base = f"{recovery.uri.rstrip('/')}/"
    first = files.get(FIRST_ROOT)
    if first is None or hashlib.sha256(first).digest() != recovery.root:
        first = _first_root(base, fetcher)
    if hashlib.sha256(first).digest() != recovery.root:
        raise RecoveryError(f"{base}1.root.json is not the root that was noted, {recovery.root_text}")
    with _folder() as folder:
        for file, data in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(data)
        problem, pins, version = None, None, 0
        try:
            version, pins = _list(folder, base, fetcher, first, now)
        except ExpiredMetadataError as error:
            problem = f"it has expired ({error}): its owner must sign it again, or your clock is wrong"
        except (RepositoryError, DownloadError) as error:
            problem = str(error)
        except (InvalidPinFile, RecoveryError, ValueError, OSError) as error:
            problem = str(error)
        kept = {
            each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*.json") if _is_kept(each)
        }
    if sum(len(data) for name, data in kept.items() if name != PIN_LIST) > _MOST_KEPT:
        return Verified(files, problem=f"its roots have more than {_MOST_KEPT} bytes")
    return Verified(kept, version, pins, problem)


@contextmanager
def _folder() -> Generator[Path]:
    # Not TemporaryDirectory: when a forked child exits, it would remove the folder of its parent.
    folder, owner = Path(tempfile.mkdtemp(prefix="dynpin-")), os.getpid()
    try:
        yield folder
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


def _first_root(base: str, fetcher: FetcherInterface) -> bytes:
    try:
        return fetcher.download_bytes(f"{base}1.root.json", LONGEST_FILE)
    except DownloadError as error:
        raise RecoveryError(str(error)) from None


def _list(folder: Path, base: str, fetcher: FetcherInterface, first: bytes, now: float) -> tuple[int, PinList]:
    config = UpdaterConfig(
        root_max_length=LONGEST_FILE, snapshot_max_length=LONGEST_FILE, targets_max_length=LONGEST_FILE
    )
    updater = Updater(str(folder), base, str(folder), f"{base}targets/", fetcher, config, bootstrap=first)
    updater.refresh()
    target = updater.get_targetinfo(PIN_LIST)
    if target is None:
        raise RecoveryError(f"the signed files have no {PIN_LIST}")
    if target.length > LONGEST_LIST:
        raise RecoveryError(f"the list has {target.length} bytes, but the limit is {LONGEST_LIST}")
    moment = datetime.fromtimestamp(now, UTC)
    signed = {
        "timestamp": Metadata[Timestamp].from_file(str(folder / "timestamp.json")).signed,
        "snapshot": Metadata[Snapshot].from_file(str(folder / "snapshot.json")).signed,
        "targets": Metadata[Targets].from_file(str(folder / "targets.json")).signed,
    }
    for role, each in signed.items():
        if each.is_expired(moment):
            raise ExpiredMetadataError(f"{role}.json is expired by the clock of the pin store")
    version = signed["targets"].version
    if version > _LAST_VERSION:
        raise RecoveryError(f"the list has version {version}; the largest allowed is {_LAST_VERSION}")
    file = updater.find_cached_target(target) or updater.download_target(target)
    return version, PinList.parse(Path(file).read_bytes())


def _is_kept(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()
