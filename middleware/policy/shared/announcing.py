"""The thread that makes a node agree with the others: it tells them this node's header, and reads theirs."""

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
# How often one look starts again if the files change at the same time.
_LOOKS = 3


class Shared(Protocol):
    """The policy of one node of a site."""

    @property
    def node(self) -> SiteNode | None:
        """The node; None if the site shares no state."""
        ...

    @property
    def built(self) -> Made | None:
        """The result of the files at the last read; None if it failed."""
        ...

    def is_current(self) -> bool:
        """Whether the files are unchanged since the last read."""
        ...

    def refresh(self) -> bool:
        """Read the files, also the copy of the shared state. True if this changed the header."""
        ...


class _Seen(NamedTuple):
    """The last look: when the next one is due, what was announced, and what was logged when (monotonic seconds)."""

    due_at: float = 0.0
    built: Made | None = None
    told: str = ""
    told_at: float = 0.0


class Announcer(BackgroundLoop[Shared, _Seen]):
    """Asks the collector every few seconds, and at once if the files of this node have changed.

    Args:
        every: seconds between two requests.
        interval: seconds between two looks at the files' header.
        clock: seconds that never go back.
    """

    def __init__(self, every: float = 10.0, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("dynpin-site", interval)
        self.every, self.clock = every, clock

    def add(self, member: Shared) -> None:
        """Keep this policy in agreement as long as it exists. A second call does nothing."""
        self.include(member, _Seen())

    def look_at(self, member: Shared, before: _Seen) -> _Seen:
        """Ask the collector if it is time. Log a failure once a minute."""
        now = self.clock()
        if member.node is None or (now < before.due_at and member.built == before.built):
            return before
        if not member.is_current():
            return before  # the files must be read first: a node must announce the header that it sends
        told: str | None
        try:
            told = self._agree(member, member.node)
        except PolicyError as error:
            told = f"This node uses its copy of the shared state, and its ramp does not move up: {error}"
        if told is None:
            return before  # its files have changed, or another process of this node was faster: start again
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
        """Let the member send the header that the new copy permits."""
        if not member.is_current():
            member.refresh()


def agree_now(member: Shared) -> None:
    """Announce this node's header once, and send what the others permit. For a command that ends afterwards."""
    once, seen = Announcer(), _Seen()
    for _ in range(_LOOKS):
        after = once.look_at(member, seen)
        if after != seen:
            return


announcer = Announcer()
announcer.survive_forks()
