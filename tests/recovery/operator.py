"""An operator's repository, made with the code of `dynpin recovery`, for its tests and for those of clients."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from dynpin import Pin
from dynpin.deploy.recovery import OFFLINE, ONLINE, Repository, complete, create, publish, read_signers
from dynpin.pin_list import ListedHost, PinList

PASSPHRASE = b"correct horse battery"


class Operator:
    """A repository with its keys, and the folder that is published."""

    def __init__(self, folder: Path, *, threshold: int = 1, of: int = 1, now: float | None = None) -> None:
        now = time.time() if now is None else now
        self.repository: Repository = create(
            folder / "recovery", threshold=threshold, of=of, passphrase=PASSPHRASE, now=now
        )
        self.www = folder / "www"
        self.www.mkdir()

    @property
    def root(self) -> bytes:
        """Version 1 of the root."""
        return (self.repository.public / "1.root.json").read_bytes()

    def keys(self, *roles: str) -> list[Path]:
        return sorted(file for role in roles for file in self.repository.keys.glob(f"{role}-*.key.pem"))

    def sign(
        self, pins: Mapping[str, tuple[Pin, ...]], *, now: float | None = None, keys: list[Path] | None = None
    ) -> None:
        """Sign a list, and publish it."""
        now = time.time() if now is None else now
        self.repository.propose(PinList({host: ListedHost(each) for host, each in pins.items()}), now=now)
        self.repository.add_signatures(read_signers(keys or self.keys(*OFFLINE), lambda: PASSPHRASE))
        self.publish(now=now)

    def publish(self, *, now: float | None = None) -> None:
        now = time.time() if now is None else now
        complete(self.repository, read_signers(self.keys(*ONLINE), lambda: b""), now=now)
        publish(self.repository, self.www)

    def rotate(self, *roles: str, threshold: int | None = None, of: int | None = None) -> None:
        """Give roles new keys, and publish the new root."""
        old = read_signers(self.keys(*OFFLINE), lambda: PASSPHRASE)
        made = self.repository.propose_keys(roles, threshold=threshold, of=of, passphrase=PASSPHRASE, now=time.time())
        assert made
        self.repository.add_signatures(old)
        self.publish()
