"""The thread by which a node agrees with the others: it tells what this node sends, and sees what they do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from dynpin.errors import PolicyError

from ..background import BackgroundLoop
from .node import Made, SiteNode

__all__ = ["Announcer", "agree_now", "announcer"]

logger = logging.getLogger("dynpin.middleware")

_TOLD_EVERY = 60.0
# How often one look starts again where the files change meanwhile.
_LOOKS = 3


class Shared(Protocol):
    """What is sent by one node of several."""

    @property
    def node(self) -> SiteNode | None:
        """The node; None if the site shares nothing."""
        ...

    @property
    def built(self) -> Made | None:
        """What the files made last; None if they make nothing."""
        ...

    def is_current(self) -> bool:
        """Whether the files are still those that were read."""
        ...

    def refresh(self) -> bool:
        """Read the files, the copy of the shared state among them; True if that changed the header."""
        ...


class _Seen(NamedTuple):
    """The last look: when the next one is due, what was announced, and what was told when (monotonic seconds)."""

    due_at: float = 0.0
    built: Made | None = None
    told: str = ""
    told_at: float = 0.0


class Announcer(BackgroundLoop[Shared, _Seen]):
    """Asks the collector every few seconds, and at once where the files of this node have changed.

    Args:
        every: seconds between two questions.
        interval: seconds between two looks at the files' header.
        clock: seconds that only go up.
    """

    def __init__(self, every: float = 10.0, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("dynpin-site", interval)
        self.every, self.clock = every, clock

    def add(self, member: Shared) -> None:
        """Keep this one in agreement for as long as it lives; twice is once."""
        self.include(member, _Seen())

    def look_at(self, member: Shared, before: _Seen) -> _Seen:
        """Ask where it is time; what stands in the way is logged once a minute."""
        now = self.clock()
        if member.node is None or (now < before.due_at and member.built == before.built):
            return before
        if not member.is_current():
            return before  # they are read first: what is told must be what is sent
        told: str | None
        try:
            told = self._agree(member, member.node)
        except PolicyError as error:
            told = f"This node goes on by its copy, and moves nothing up: {error}"
        if told is None:
            return before  # its files, or another process of this node, were faster: once more, with what is new
        told_at = before.told_at
        if told and (told != before.told or now - told_at >= _TOLD_EVERY):
            logger.error("%s", told)
            told_at = now
        return _Seen(now + self.every, member.built, told, told_at)

    def _agree(self, member: Shared, node: SiteNode) -> str | None:
        node.state.fetch()
        self._follow(member)
        if member.built is None:
            return ""
        waits = node.agree(member.built, member.is_current)
        self._follow(member)
        return f"The header waits: {waits}" if waits else waits

    def _follow(self, member: Shared) -> None:
        """Have the member send what the copy says since now."""
        if not member.is_current():
            member.refresh()


def agree_now(member: Shared) -> None:
    """Tell the others once what this node sends, and send what they permit; for a command that ends afterwards."""
    once, seen = Announcer(), _Seen()
    for _ in range(_LOOKS):
        after = once.look_at(member, seen)
        if after != seen:
            return


announcer = Announcer()
announcer.survive_forks()
