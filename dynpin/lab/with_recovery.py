"""The second ending of a scenario: the same story, but every header names a root for recovery (:mod:`dynpin.recovery`).

A site's header names the owner's root, and an attacker's header names the attacker's own. So every story also tries
whatever a thief could gain by recovery. At the first lock-out the owner signs a list of the deployed keys, and the
client tries again within a minute. The story ends there. A story without a lock-out is played to its end.
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

# The first action of the second ending.
SIGNS = "signs a list of its current keys"

# In seconds: how often a refused client tries again. dynpin looks at the same list at most every 30 seconds.
_TRIES_AFTER = 30.0


class EndedWithRecoveryError(Exception):
    """The story is over: the result of its first lock-out is known."""


class WithRecovery:
    """The lists of the sites' owner and of the attacker, published before the story begins.

    Args:
        world: the world of the story.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._owners = world.publishes("recovery.test")
        world.owners_root, world.thiefs_root = self._owners.recovery, world.publishes("thief.test").recovery

    def ends(self, client: Client, host: str) -> Event:
        """Sign the owner's list, and return the last visit of the minute that follows."""
        sites = [each for each in self._world.listeners if isinstance(each, Site)]
        self._owners.signs(listed(sites), self._world.now)
        self._world.tells(next((site.name for site in sites if site.host == host), host), SIGNS)
        self._world.now += _TRIES_AFTER
        client.visits(host)
        self._world.now += _TRIES_AFTER
        return client.visits(host)


def ending(timeline: Timeline) -> list[Event]:
    """The events that only the second ending has, from the owner's signature on; empty without a lock-out."""
    begins = next((at for at, event in enumerate(timeline.events) if event.text == SIGNS), len(timeline.events))
    return timeline.events[begins:]


def listed(sites: Iterable[Site]) -> dict[str, ListedHost]:
    """The list that the owners of sites sign: the deployed keys and their backups, by host.

    If a site's pins cover its subdomains, they include the subdomains' keys. A site with a wildcard has no host to
    list; in the stories it belongs to an attacker.
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
