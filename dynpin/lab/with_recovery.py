"""The second ending of a scenario: the same story, but every header names a root for recovery (:mod:`dynpin.recovery`).

A site's header names the owner's root and an attacker's names the attacker's own, so that whatever a thief could gain
by recovery is tried in every story. At the first lock-out the owner signs a list of the keys that are deployed, and the
client tries again within a minute: the story ends there. A story without a lock-out is played to its end.
"""

from __future__ import annotations

from collections.abc import Iterable

from dynpin.lab.clients import Client
from dynpin.lab.servers import Site
from dynpin.lab.timeline import Event, Timeline
from dynpin.lab.world import World
from dynpin.pin_list import ListedHost
from dynpin.pins import Pin

__all__ = ["SIGNS", "EndedWithRecoveryError", "WithRecovery", "ending", "listed"]

# The deed with which the second ending begins.
SIGNS = "signs a list of the keys that it has now"

# In seconds: how often a client that was refused tries again. dynpin looks at the same list every 30 seconds at most.
_TRIES_AFTER = 30.0


class EndedWithRecoveryError(Exception):
    """The story is over: what comes of its first lock-out is known."""


class WithRecovery:
    """What the sites' owner and the attacker have before the story begins.

    Args:
        world: where the story is played.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._owners = world.publishes("recovery.test")
        world.owners_root, world.thiefs_root = self._owners.recovery, world.publishes("thief.test").recovery

    def ends(self, client: Client, host: str) -> Event:
        """Have the owner sign, and give the last visit of the minute that follows."""
        sites = [each for each in self._world.listeners if isinstance(each, Site)]
        self._owners.signs(listed(sites), self._world.now)
        self._world.tells(next((site.name for site in sites if site.host == host), host), SIGNS)
        self._world.now += _TRIES_AFTER
        client.visits(host)
        self._world.now += _TRIES_AFTER
        return client.visits(host)


def ending(timeline: Timeline) -> list[Event]:
    """What the second ending has that the story has not: from the owner's signature on; empty without a lock-out."""
    begins = next((at for at, event in enumerate(timeline.events) if event.text == SIGNS), len(timeline.events))
    return timeline.events[begins:]


def listed(sites: Iterable[Site]) -> dict[str, ListedHost]:
    """What the owners of sites sign: the keys that are deployed and their backups, by host.

    The pins of a site that cover its subdomains name their keys too. A site with a wildcard has no host to list: in the
    stories it is an attacker's own.
    """
    named = [site for site in sites if "*" not in site.host]
    hosts: dict[str, ListedHost] = {}
    for host in {site.host: None for site in named}:
        pins: dict[Pin, None] = {}
        for site in named:
            if site.host == host or site.host.endswith(f".{host}"):
                pins |= dict.fromkeys(key.pin for key in (site.key, *site.backups))
        hosts[host] = ListedHost(tuple(pins), any(site.covers_subdomains for site in named if site.host == host))
    return hosts
