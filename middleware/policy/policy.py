"""Policy: the header of a site, made from its keys, and made again when they change (RFC 7469 §2.1, §4)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypedDict, cast, get_args

from dynpin.errors import PolicyError
from dynpin.header import PublicKeyPins
from dynpin.recovery import Recovery

from .inventory import Built, Inventory
from .keys import KeySource, located, several
from .rules import Mode, Pinned, check_flag, check_text, one_of
from .sent import recall, remember
from .steps import Ramp
from .watching import Signature, signature, watcher

if TYPE_CHECKING:
    from .ramp import KeptRamp
    from .shared import Permitted, SiteNode

__all__ = ["KeylessPolicyOptions", "Mode", "OnInvalid", "Pinned", "Policy", "PolicyOptions"]

logger = logging.getLogger("dynpin.middleware")

OnInvalid = Literal["raise", "silence"]


class KeylessPolicyOptions(TypedDict, total=False):
    """The keywords of :class:`Policy` without `keys` and `backups`."""

    max_age: timedelta | int | None
    include_subdomains: bool
    report_uri: str | None
    mode: Mode
    pinned: Pinned
    hosts: str | Iterable[str]
    roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    allow_long_max_age: bool
    on_invalid: OnInvalid
    remember: str | os.PathLike[str] | None
    recovery: Recovery | None


class PolicyOptions(KeylessPolicyOptions, total=False):
    """The keywords of :class:`Policy`: the middleware takes them too."""

    keys: KeySource | Iterable[KeySource]
    backups: KeySource | Iterable[KeySource]


class Policy:
    """What a site tells its clients to pin: checked here, before the first client hears of it.

    Keys are given as paths (str or PathLike), as PEM or DER (bytes, or a str with PEM), or as a
    :class:`~dynpin.Pin`; as certificates, public or private keys, or CSRs.

    Args:
        keys: the deployed chain, as the server shows it; several where it has several (an RSA and an EC certificate
            side by side).
        backups: the keys that are kept in reserve. One at least must stand in no deployed chain.
        max_age: for how long clients refuse every other key, counted from each visit (§2.1.2): a timedelta or whole
            seconds. Needed to enforce.
        include_subdomains: whether the pins hold for every subdomain too (§2.1.3).
        report_uri: where clients report violations (§2.1.4): not on the pinned host, nor covered by its pins.
        mode: ``"enforce"``; ``"report-only"``, to try a policy out (§2.3.2); or ``"unpin"``, which has clients forget
            their pins: max-age=0, in the form that all of them take.
        pinned: which certificates of each deployed chain are pinned: ``"leaf"``, ``"chain"`` for all of them, or one or
            several numbers, counted from the leaf, 0.
        hosts: the names that the server answers; by default those of the deployed certificates. The certificates must
            be for them, and `report_uri` must be elsewhere.
        roots: files with the roots of your own CA, which clients trust beside those of the system: a Backup Pin may
            stand in no chain that they complete.
        allow_long_max_age: permit more than 60 days (§4.1).
        on_invalid: ``"raise"``; or ``"silence"``, to start without a header where it would raise: for the emergency in
            which the backup is deployed and the next one not made. What clients noted holds on.
        remember: a file in which the last header is kept that clients may have noted, so that a process that starts
            later knows it: one that finds a deployed key which that header did not pin sends no header, and logs as
            critical. A file for each policy; every process of the server must be able to write to it and its folder.
        recovery: whose signed list lets clients in again that are locked out (``dynpin recovery``), or None.

    Raises:
        PolicyError: if the header would lock users out, protect nobody, or could not be sent.

    Attributes:
        header: the header that is sent now, or None if none is.
        field: the same as an ASGI header field, or None.
        text_field: the same as a WSGI header field, or None.
        mode: what the header is to do; None if that could not be read.
        made_from: the signature of the files when they were read last.
        ramp: the way up to this policy, where an inventory has one, or None.
        kept_ramp: where the position on that way is kept, or None.
        node: this node among those of its site, where they share a state, or None.
        built: what the files made when they were read last, or None.
    """

    def __init__(
        self,
        keys: KeySource | Iterable[KeySource],
        backups: KeySource | Iterable[KeySource] = (),
        *,
        max_age: timedelta | int | None = None,
        include_subdomains: bool = False,
        report_uri: str | None = None,
        mode: Mode = "enforce",
        pinned: Pinned = "leaf",
        hosts: str | Iterable[str] = (),
        roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        allow_long_max_age: bool = False,
        on_invalid: OnInvalid = "raise",
        remember: str | os.PathLike[str] | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        # A text is true, whatever it says.
        check_flag("include_subdomains", include_subdomains)
        check_flag("allow_long_max_age", allow_long_max_age)
        check_text("report_uri", report_uri)
        inventory = Inventory(
            keys=located("keys", keys),
            backups=located("backups", backups),
            max_age=max_age,
            include_subdomains=include_subdomains,
            report_uri=report_uri,
            mode=mode,
            pinned=pinned,
            hosts=cast("tuple[str, ...]", several("hosts", hosts, (str,), "host names")),
            roots=tuple(
                Path(cast("str | os.PathLike[str]", root)).absolute()
                for root in several("roots", roots, (str, os.PathLike), "paths")
            ),
            allow_long_max_age=allow_long_max_age,
            remember=None if remember is None else Path(remember).absolute(),
            recovery=recovery,
        )
        self._begin(lambda: inventory, on_invalid)

    @classmethod
    def from_inventory(cls, path: str | os.PathLike[str], *, on_invalid: OnInvalid = "raise") -> Self:
        """The policy that a ``dynpin.toml`` describes (:mod:`dynpin.middleware.policy.toml`), and follows.

        Raises:
            PolicyError: as of :class:`Policy`, or where the file says what is not understood.
        """
        from .toml import read_inventory  # noqa: PLC0415 - for those who have such a file

        file = Path(path).absolute()
        policy = cls.__new__(cls)
        policy._begin(lambda: read_inventory(file), on_invalid, file)
        return policy

    def _begin(self, source: Callable[[], Inventory], on_invalid: OnInvalid, file: Path | None = None) -> None:
        """Read the inventory from its source, which itself reads this file, and make the header."""
        one_of("on_invalid", on_invalid, get_args(OnInvalid))
        self._source = source
        self._paths: tuple[Path, ...] = () if file is None else (file,)
        self._lock = threading.Lock()
        self.mode: Mode | None = None
        self.header: PublicKeyPins | None = None
        self.field: tuple[bytes, bytes] | None = None
        self.text_field: tuple[str, str] | None = None
        self.made_from: Signature = ()
        self.ramp: Ramp | None = None
        self.kept_ramp: KeptRamp | None = None
        self.node: SiteNode | None = None
        self.built: Built | None = None
        self._is_watched = False
        # The last header that clients may have noted of this process, or of the one before it.
        self._noted: PublicKeyPins | None = None
        self._memory: Path | None = None
        # Why the header waits for the other nodes of the site, as it was told.
        self._told = ""
        try:
            self._start(self._read())
        except PolicyError as error:
            if on_invalid == "raise":
                raise
            logger.error("The server starts without a Public-Key-Pins header: %s", error)  # noqa: TRY400 - no traceback

    def _start(self, built: Built) -> None:
        if self.node is not None:
            self._settle(self.node.permitted(built), built)
        elif self._locks_out(built):
            self._fall_silent()
        else:
            self._take(built.header, built.warnings)
            self._remember()

    def __repr__(self) -> str:
        return f"<Policy {self.header.name}: {self.header}>" if self.header else "<Policy without a header>"

    def watch(self) -> None:
        """Have the files watched and the header follow them, without a request noticing. The middleware calls this."""
        self._is_watched = True
        if self._paths:
            watcher.add(self)
        self._move()

    def _move(self) -> None:
        """Have the ramp climbed, and the other nodes of the site agreed with, where there are such."""
        if not self._is_watched:
            return
        if self.ramp is not None:
            from .ramp import driver  # noqa: PLC0415 - for those who have a ramp

            driver.add(self)
        if self.node is not None:
            from .shared import announcer  # noqa: PLC0415 - for those who share a state

            announcer.add(self)

    def signature(self) -> Signature:
        """The signature of the files as they are now."""
        return signature(self._paths)

    def is_current(self) -> bool:
        """Whether the files are still those that were read."""
        return self.signature() == self.made_from

    def refresh(self) -> bool:
        """Read the files again; True if the header has changed.

        A change that would make a bad header keeps the last good one, and is logged as an error. A deployed key that
        the header did not pin leaves no header to send, and is logged as critical.
        """
        with self._lock:
            before = self.header
            try:
                built = self._read()
            except PolicyError as error:
                kept = "the last good header stays" if before else "there is still no header"
                logger.error("The key files have changed, and %s: %s", kept, error)  # noqa: TRY400 - no traceback
                return False
            self._move()  # a ramp or a shared state may stand in the file since now
            if self.node is not None:
                return self._follow(self.node, built)
            if self._locks_out(built):
                self._fall_silent()
                return before is not None
            if built.header == before:
                return False
            self._take(built.header, built.warnings)
            try:
                self._remember()
            except PolicyError as error:
                logger.error("The header is sent, but not remembered: %s", error)  # noqa: TRY400 - no traceback
            logger.info("The header is now %s: %s", built.header.name, built.header)
            return True

    # -- with a state that the nodes of a site share ------------------------------------------------------------------

    def _follow(self, node: SiteNode, built: Built) -> bool:
        """Send what the other nodes of the site permit; True if the header has changed."""
        before = self.header
        try:
            self._settle(node.permitted(built), built)
        except PolicyError as error:
            logger.error("The header stays as it is: %s", error)  # noqa: TRY400 - no traceback
        if self.header is not None and self.header != before:
            logger.info("The header is now %s: %s", self.header.name, self.header)
        return self.header != before

    def _settle(self, permitted: Permitted, built: Built) -> None:
        told, self._told = self._told, permitted.waits
        if permitted.header is not None:
            if permitted.header != self.header:
                self._take(permitted.header, built.warnings)
        else:
            self.header = self.field = self.text_field = None
        if permitted.refusing is not None:
            self._told = str(permitted.refusing)
            if self._told != told:
                logger.critical(
                    "The deployed key is one that a header does not name which node %s has sent: clients that noted it "
                    "are locked out until their pins expire, and this node sends no header any more. Deploy a pinned "
                    "key again, and the header comes back. Clients may hold: %s",
                    permitted.refusing.node,
                    permitted.refusing.header,
                )
        elif permitted.waits and permitted.waits != told:
            logger.warning("%s", permitted.waits)

    # -- alone --------------------------------------------------------------------------------------------------------

    def _locks_out(self, built: Built) -> bool:
        """Whether whoever noted the header before would refuse a chain that is deployed now and would be pinned."""
        if self._noted is None or not built.header.max_age:
            return False
        noted = self._noted.pins
        return any(frozenset(chain.pins).isdisjoint(noted) for chain in built.chains)

    def _fall_silent(self) -> None:
        # Neither header is right. With the new one clients would note a key that goes away once the pinned key is back;
        # with the old one, a key that is not shown. Without a header they note neither, and what they noted holds.
        self.header = self.field = self.text_field = None
        first = "" if self._memory is None else f"remove {self._memory} and "
        logger.critical(
            "The deployed key has changed to one that the header did not pin: clients that noted the header are locked "
            "out until their pins expire, and no header is sent any more. Deploy a pinned key again, and the header "
            "comes back. If no client can hold the old pins any more (`dynpin rotate status` shows until when), "
            "%srestart the server, which then pins the new key. Clients may hold: %s",
            first,
            self._noted,
        )

    def _remember(self) -> None:
        if self._memory is not None and self._noted is not None:
            remember(self._memory, self._noted)

    def _read(self) -> Built:
        """The header of the files as they stand at one moment."""
        for _ in range(5):
            self.made_from = self.signature()
            inventory = self._source()
            self.mode, self.ramp, self._memory = inventory.mode, inventory.ramp, inventory.remember
            self.node = self._node_of(inventory)
            self.kept_ramp = inventory.kept_ramp(None if self.node is None else self.node.state)
            if self._noted is None and self._memory is not None:
                self._noted = recall(self._memory)
            if inventory.paths != self._paths:
                # It names other files now: look at them too, before they are read.
                self._paths = inventory.paths
                continue
            built = inventory.build()
            if self.is_current():
                self.built = built
                return built
        raise PolicyError(f"{', '.join(map(str, self._paths))} change faster than they can be read")

    def _node_of(self, inventory: Inventory) -> SiteNode | None:
        """The node as which this process runs; the same as before while the inventory says the same."""
        if inventory.state is None:
            return None
        from .shared import SharedState, SiteNode  # noqa: PLC0415 - for those who share a state

        if self.node is not None and self.node.state.source == inventory.state:
            return self.node
        return SiteNode(SharedState(inventory.state))

    def _take(self, header: PublicKeyPins, warnings: Iterable[str]) -> None:
        for warning in warnings:
            logger.warning("%s", warning)
        self.header = header
        if header.max_age:
            self._noted = header
        self.text_field = (header.name, str(header))
        # ASGI: header names are lower case
        self.field = (header.name.lower().encode("ascii"), str(header).encode("latin-1"))
