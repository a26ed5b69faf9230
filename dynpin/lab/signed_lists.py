"""Signed lists in a scenario: an owner's keys of `dynpin recovery`, the signed files, and their server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Self

from dynpin.deploy.recovery import OFFLINE, ONLINE, ROLES, Repository, complete, create, publish, read_signers
from dynpin.lab.loopback import LoopbackServer
from dynpin.pin_list import PIN_LIST, ListedHost, PinList
from dynpin.recovery import Recovery

__all__ = ["SignedList"]

_PASSPHRASE = b"of the lab alone"


class SignedList:
    """An owner's signed list, published over HTTP on 127.0.0.1; a context manager.

    TUF uses the machine's clock as well as the story's, so signatures last from the later of the two.

    Args:
        folder: for keys and files; it is created.
        host: the name of its server; the network must lead that name to :attr:`port`.
        threshold: how many keys must sign a root, or a list.
        of: how many keys there are for each.

    Attributes:
        root: version 1 of its ``root.json``, which a program may ship.
        recovery: the part of a header that names it.
        port: the port of its server.
        requests: the paths that were requested.
    """

    def __init__(self, folder: Path, host: str, *, threshold: int = 1, of: int = 1) -> None:
        folder.mkdir()
        self._www = folder / "www"
        self._www.mkdir()
        self._repository = create(folder / "owner", threshold=threshold, of=of, passphrase=_PASSPHRASE, now=time.time())
        self.root = (self._repository.public / "1.root.json").read_bytes()
        self.recovery: Recovery = self._repository.recovery(f"http://{host}")
        self.requests: list[str] = []
        handler = partial(_Handler, self.requests, directory=str(self._www))
        self._server = LoopbackServer(handler)
        self.port: int = self._server.server_port

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__(*exc_info)

    def signs(self, hosts: Mapping[str, ListedHost], now: float) -> None:
        """Sign a list with every key, and publish it; `now` is the story's time, in seconds since the epoch."""
        now = max(now, time.time())
        self._repository.propose(PinList(hosts), now=now)
        self._repository.add_signatures(read_signers(self._keys(*OFFLINE), lambda: _PASSPHRASE))
        self._publish(now)

    def rotates_keys(self, now: float, *, without: int) -> None:
        """Give every role new keys, as many as before; the old key with this number signs nothing."""
        now = max(now, time.time())
        held = [key for key in self._keys(*OFFLINE) if f"-{without}." not in key.name]
        signers = read_signers(held, lambda: _PASSPHRASE)
        self._repository.propose_keys(ROLES, passphrase=_PASSPHRASE, now=now, signers=signers)
        self._publish(now)

    def is_forged(self, hosts: Mapping[str, ListedHost], now: float, *, key: int) -> None:
        """Publish a list that an attacker has signed, who has the server with its keys, and one key of the list."""
        now = max(now, time.time())
        copy = self._repository.folder.parent / "thief"
        shutil.copytree(self._repository.folder, copy)
        thief = Repository(copy)
        thief.propose(PinList(hosts), now=now)
        stolen = [file for file in self._keys("targets") if f"-{key}." in file.name]
        thief.add_signatures(read_signers(stolen, lambda: _PASSPHRASE))
        # dynpin publishes no list with too few signatures, so the attacker writes the files, with the current time.
        targets = thief.waiting.targets()
        assert targets is not None  # noqa: S101 - he has just begun it
        digest = targets.signed.targets[PIN_LIST].hashes["sha256"]
        (self._www / "targets" / f"{digest}.{PIN_LIST}").write_bytes(thief.waiting.list_data(targets))
        (self._www / f"{targets.signed.version}.targets.json").write_bytes(targets.to_bytes())
        snapshot, timestamp = thief.files.snapshot(), thief.files.timestamp()
        assert timestamp is not None  # noqa: S101 - a list has been published
        snapshot.signed.version += 1
        snapshot.signed.meta["targets.json"].version = targets.signed.version
        timestamp.signed.version += 1
        timestamp.signed.snapshot_meta.version = snapshot.signed.version
        (snapshot_signer, timestamp_signer) = (read_signers(self._keys(role), lambda: b"")[0] for role in ONLINE)
        snapshot.sign(snapshot_signer)
        timestamp.sign(timestamp_signer)
        (self._www / f"{snapshot.signed.version}.snapshot.json").write_bytes(snapshot.to_bytes())
        (self._www / "timestamp.json").write_bytes(timestamp.to_bytes())

    def _keys(self, *roles: str) -> list[Path]:
        return sorted(file for role in roles for file in self._repository.keys.glob(f"{role}-*.key.pem"))

    def _publish(self, now: float) -> None:
        complete(self._repository, read_signers(self._keys(*ONLINE), lambda: b""), now=now)
        publish(self._repository, self._www)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, requests: list[str], *args: object, directory: str) -> None:
        self._requests = requests
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._requests.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own
        """Log nothing: requests are part of the story."""
