"""Policy: the header of a site, made from its keys, and made again when the keys change (RFC 7469 §2.1, §4)."""

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
    """The pinning policy of a site. It is checked here, before a client gets the header.

    A key is a path (str or PathLike), PEM or DER (bytes, or a str with PEM), or a :class:`~dynpin.Pin`. It may be a
    certificate, a public or private key, or a CSR.

    Args:
        keys: the deployed chain, as the server sends it; or several chains, such as an RSA and an EC certificate.
        backups: the backup keys. At least one must be in no deployed chain.
        max_age: how long clients refuse every other key after each visit (§2.1.2): a timedelta or whole seconds.
            Required for ``"enforce"``.
        include_subdomains: whether the pins also hold for every subdomain (§2.1.3).
        report_uri: the address for reports of violations (§2.1.4). Its host must not be pinned by this policy.
        mode: ``"enforce"``; ``"report-only"``, to try a policy out (§2.3.2); or ``"unpin"``, to make clients forget
            their pins: max-age=0, in a form that all clients accept.
        pinned: the certificates of each deployed chain to pin: ``"leaf"``, ``"chain"`` for all of them, or one or
            several numbers, where the leaf is 0.
        hosts: the names of the server; by default those of the deployed certificates. The certificates must cover
            them, and `report_uri` must be on another host.
        roots: files with the roots of your own CA, which clients trust in addition to those of the system. A Backup
            Pin must not be in a chain that they complete.
        allow_long_max_age: permit more than 60 days (§4.1).
        on_invalid: ``"raise"``; or ``"silence"``: start without a header instead of raising. Use it in an emergency,
            when the backup key is deployed and there is no next one. Clients keep the pins that they noted.
        remember: a file that keeps the last header, for processes that start later. If such a process finds a deployed
            key that this header did not pin, it sends no header, and logs a critical message. Use one file for each
            policy. Every process of the server must be able to write to the file and its folder.
        recovery: the signed list that lets locked-out clients in again (``dynpin recovery``), or None.

    Raises:
        PolicyError: if the header would lock users out, protect nobody, or could not be sent.

    Attributes:
        header: the current header, or None if none is sent.
        field: the header as an ASGI header field, or None.
        text_field: the header as a WSGI header field, or None.
        mode: the mode of the policy; None if it could not be read.
        made_from: the signature of the files at the last read.
        ramp: the ramp up to this policy, or None.
        kept_ramp: the stored position on the ramp, or None.
        node: this node of its site, or None if the nodes share no state.
        built: the result of the files at the last read, or None.
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
        # Refuse a text: any text, even "false", would count as True.
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
        """The policy of a ``dynpin.toml`` (:mod:`dynpin.middleware.policy.toml`). It follows changes of the file.

        Raises:
            PolicyError: see :class:`Policy`; also if a value in the file is not valid.
        """
        from .toml import read_inventory  # noqa: PLC0415 - only a dynpin.toml needs it

        file = Path(path).absolute()
        policy = cls.__new__(cls)
        policy._begin(lambda: read_inventory(file), on_invalid, file)
        return policy

    def _begin(self, source: Callable[[], Inventory], on_invalid: OnInvalid, file: Path | None = None) -> None:
        """Read the inventory from its source, which may read `file`, and make the header."""
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
        # The last header of this process, or of an earlier one, that clients may have noted.
        self._noted: PublicKeyPins | None = None
        self._memory: Path | None = None
        # Why the header waits for the other nodes of the site; this was logged.
        self._logged = ""
        try:
            self._start(self._read())
        except PolicyError as error:
            if on_invalid == "raise":
                raise
            logger.error("The server starts without a Public-Key-Pins header: %s", error)  # noqa: TRY400 - no traceback

    def _start(self, built: Built) -> None:
        if self.node is not None:
            self._send_permitted(self.node.permitted(built), built)
        elif self._locks_out(built):
            self._fall_silent()
        else:
            self._take(built.header, built.warnings)
            self._remember()

    def __repr__(self) -> str:
        return f"<Policy {self.header.name}: {self.header}>" if self.header else "<Policy without a header>"

    def watch(self) -> None:
        """Watch the files, and change the header with them, in the background. The middleware calls this."""
        self._is_watched = True
        if self._paths:
            watcher.add(self)
        self._move()

    def _move(self) -> None:
        """Start the ramp, and the agreement with the other nodes, if the site has them."""
        if not self._is_watched:
            return
        if self.ramp is not None:
            from .ramp import driver  # noqa: PLC0415 - only a ramp needs it

            driver.add(self)
        if self.node is not None:
            from .shared import announcer  # noqa: PLC0415 - only a shared state needs it

            announcer.add(self)

    def signature(self) -> Signature:
        """The current signature of the files."""
        return signature(self._paths)

    def is_current(self) -> bool:
        """Whether the files are unchanged since the last read."""
        return self.signature() == self.made_from

    def refresh(self) -> bool:
        """Read the files again. True if the header has changed.

        If the new header would be bad, the last good one stays, and an error is logged. If a deployed key was not
        pinned by the header, no header is sent, and a critical message is logged.
        """
        with self._lock:
            before = self.header
            try:
                built = self._read()
            except PolicyError as error:
                kept = "the last good header stays" if before else "there is still no header"
                logger.error("The key files have changed, and %s: %s", kept, error)  # noqa: TRY400 - no traceback
                return False
            self._move()  # the file may have a new ramp or shared state
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
                logger.error("The header is sent, but it could not be stored: %s", error)  # noqa: TRY400 - no traceback
            logger.info("The header is now %s: %s", built.header.name, built.header)
            return True

    # -- several nodes with a shared state ----------------------------------------------------------------------------

    def _follow(self, node: SiteNode, built: Built) -> bool:
        """Send the header that the other nodes permit. True if the header has changed."""
        before = self.header
        try:
            self._send_permitted(node.permitted(built), built)
        except PolicyError as error:
            logger.error("The header stays as it is: %s", error)  # noqa: TRY400 - no traceback
        if self.header is not None and self.header != before:
            logger.info("The header is now %s: %s", self.header.name, self.header)
        return self.header != before

    def _send_permitted(self, permitted: Permitted, built: Built) -> None:
        logged, self._logged = self._logged, permitted.waits
        if permitted.header is not None:
            if permitted.header != self.header:
                self._take(permitted.header, built.warnings)
        else:
            self.header = self.field = self.text_field = None
        if permitted.refusing is not None:
            self._logged = str(permitted.refusing)
            if self._logged != logged:
                logger.critical(
                    "Node %s has sent a header that does not pin the key deployed here: clients that noted that header "
                    "refuse this node until their pins expire. This node sends no header now. Deploy a pinned key "
                    "again, and the header comes back. Clients may hold: %s",
                    permitted.refusing.node,
                    permitted.refusing.header,
                )
        elif permitted.waits and permitted.waits != logged:
            logger.warning("%s", permitted.waits)

    # -- one node -----------------------------------------------------------------------------------------------------

    def _locks_out(self, built: Built) -> bool:
        """Whether a client that noted the last header would refuse a deployed chain that the new header pins."""
        if self._noted is None or not built.header.max_age:
            return False
        noted = self._noted.pins
        return any(frozenset(shown).isdisjoint(noted) for shown in built.shown)

    def _fall_silent(self) -> None:
        # Neither header is right. From the new one clients would note a key that ends when the pinned key is back.
        # From the old one they would note a key that is not deployed. So send none; clients keep what they noted.
        self.header = self.field = self.text_field = None
        first = "" if self._memory is None else f"remove {self._memory} and "
        logger.critical(
            "The header did not pin the key that is deployed now: clients that noted the header are locked out until "
            "their pins expire. No header is sent now. Deploy a pinned key again, and the header comes back. When no "
            "client can hold the old pins (`dynpin rotate status` shows the time), %srestart the server, which then "
            "pins the new key. Clients may hold: %s",
            first,
            self._noted,
        )

    def _remember(self) -> None:
        if self._memory is not None and self._noted is not None:
            remember(self._memory, self._noted)

    def _read(self) -> Built:
        """Make the header from one consistent state of the files."""
        for _ in range(5):
            self.made_from = self.signature()
            inventory = self._source()
            self.mode, self.ramp, self._memory = inventory.mode, inventory.ramp, inventory.remember
            self.node = self._node_of(inventory)
            self.kept_ramp = inventory.kept_ramp(None if self.node is None else self.node.state)
            if self._noted is None and self._memory is not None:
                self._noted = recall(self._memory)
            if inventory.paths != self._paths:
                # The inventory names other files now. Take their signature too before they are read.
                self._paths = inventory.paths
                continue
            built = inventory.build()
            if self.is_current():
                self.built = built
                return built
        raise PolicyError(f"{', '.join(map(str, self._paths))} change faster than they can be read")

    def _node_of(self, inventory: Inventory) -> SiteNode | None:
        """The node of this process; the same object while the inventory does not change it."""
        if inventory.state is None:
            return None
        from .shared import SharedState, SiteNode  # noqa: PLC0415 - only a shared state needs it

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
        # ASGI: header names are in lower case
        self.field = (header.name.lower().encode("ascii"), str(header).encode("latin-1"))
