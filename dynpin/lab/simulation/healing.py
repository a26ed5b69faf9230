"""Clients of sites with a signed list: :mod:`.engine`, interrupted at each look of a client that matters.

After a refusal the client looks (:mod:`.looks`) at the list of the root that it has noted (:mod:`.roots`). A new
version replaces its pins without extending their time (:mod:`dynpin.clientstore.store`), from the next second on.
"""

from __future__ import annotations

import numpy as np

from .engine import Booleans, Game, Ledger, Stores, Stretch
from .looks import NEVER, Looks
from .recovery import Recovery
from .roots import OWNER, THIEF, Roots
from .visits import Integers, Visits, ranges
from .world import KEPT, NO_ENTRY, World

__all__ = ["play_with_lists"]


def play_with_lists(
    world: World,
    visits: Visits,
    targets: Booleans,
    ledger: Ledger,
    *,
    recovery: Recovery,
    listed: Booleans,
    phases: Integers,
    least_step: float = 0.0,
) -> Stores:
    """Let clients visit, until the horizon, as :func:`~dynpin.lab.simulation.engine.play` does.

    Args:
        world: the policy in its calendar, with the versions of its list.
        visits: when they visit.
        targets: whether each attack (row) reaches each client (column).
        ledger: records what happens.
        recovery: when clients look.
        listed: for each client, whether its site has a signed list.
        phases: the second of each client's first look, if it follows the list.
        least_step: the share of max-age by which an expiry must move to be written.

    Returns:
        the stores at the end.
    """
    game = Game(world, visits, ledger, least_step)
    if world.lists:
        game.play(targets, _Healing(game, recovery, listed, phases))
    else:
        game.play(targets, game)
    return game.stores


class _Healing:
    def __init__(self, game: Game, recovery: Recovery, listed: Booleans, phases: Integers) -> None:
        self._game, self._listed = game, listed
        self._roots = Roots.of(len(game.visits))
        self._follows = recovery.watch == "followed"
        self._looks = Looks(len(game.visits), phases if self._follows else None)
        if self._follows:
            # It has the first version before its first visit. Each look renews it, and no header changes these pins.
            game.stores.entry[listed], game.stores.expires_at[listed] = game.world.lists[0], NEVER
            self._roots.standing[listed], self._roots.version[listed] = OWNER, 1

    def meet(self, stretch: Stretch, face: int, *, attacker: bool) -> Integers:
        accepted = stretch.end.copy()
        listed = self._listed[stretch.who]
        others = np.flatnonzero(~listed)
        if others.size:
            accepted[others] = self._game.meet(stretch.only(others), face, attacker=attacker)
        left = np.flatnonzero(listed)
        now, until = stretch.since, stretch.until
        stretch = Stretch(stretch.who, stretch.first.copy(), stretch.end, now.copy(), until)
        while left.size:
            step = self._next_step(stretch.only(left), face)
            met = self._meet(step, face, attacker=attacker)
            accepted[left] = np.minimum(accepted[left], np.where(met < step.end, met, accepted[left]))
            self._look(step)
            stretch.first[left], stretch.since[left] = step.end, step.until
            left = left[step.until < stretch.until[left]]
        return accepted

    def _next_step(self, stretch: Stretch, face: int) -> Stretch:
        """The stretch until a look is done, or until the first refused visit, which starts a look."""
        who, stores, roots, looks = stretch.who, self._game.stores, self._roots, self._looks
        visit = self._game.second_of(stretch, stretch.first)
        # Until the next visit only a look can change anything, and only if there is a new version.
        news = (roots.standing[who] == OWNER) & (roots.version[who] < self._game.epoch.version)
        skipped = np.flatnonzero(~news & (looks.next[who] < visit))
        looks.skip(who[skipped], visit[skipped])
        expires_at = self._held(who)
        asks = ~self._game.rules.accepts[stores.entry[who], face] & (stretch.first < stretch.end)
        asks &= (visit <= expires_at) & (visit <= looks.next[who])
        asks &= (roots.standing[who] == OWNER) & (roots.ends(who, expires_at) >= visit)
        until = np.where(asks, visit + 1, np.minimum(looks.next[who] + 1, stretch.until))
        asking = np.flatnonzero(asks)
        looks.ask(who[asking], visit[asking])
        return Stretch(who, stretch.first, self._game.visits.index(who, until), stretch.since, until)

    def _look(self, step: Stretch) -> None:
        """Apply the list, if a look began in the last second of the step."""
        now = np.flatnonzero(self._looks.next[step.who] + 1 == step.until)
        if not now.size:
            return
        who, done, stores, roots = step.who[now], step.until[now], self._game.stores, self._roots
        version = self._game.epoch.version
        row, expires_at = self._game.world.lists[version - 1], self._held(who)
        taken = (expires_at >= done) & (roots.version[who] < version)
        taken &= (roots.standing[who] == OWNER) & (roots.ends(who, expires_at) >= done)
        changed = taken & (stores.entry[who] != row)
        stores.entry[who[changed]], roots.version[who[taken]] = row, version
        # For a refused client, pins that its program preloads have not changed: it continues to look.
        self._looks.done(who, np.zeros_like(changed) if self._follows else changed)

    def _meet(self, stretch: Stretch, face: int, *, attacker: bool) -> Integers:
        first, noted, becomes = self._game.face(stretch, face, attacker=attacker, notes=not self._follows)
        if becomes == KEPT:
            return first
        expires_at, visit = self._held(noted.who), self._game.second_of(noted, noted.first)
        if becomes == NO_ENTRY:
            self._roots.keep(noted.who, expires_at, visit)
            self._game.note(noted, becomes, face)
            return first
        named = THIEF if attacker else OWNER
        plain = self._roots.is_plain(noted.who, expires_at, visit, named, int(self._game.rules.max_age[face]))
        plain &= ~self._forgets_between(noted, face)
        simple = noted.only(np.flatnonzero(plain))
        unknown = simple.who[expires_at[plain] < visit[plain]]
        self._roots.begin(unknown, named)
        self._looks.drop(unknown)
        self._game.note(simple, becomes, face)
        self._note_in_turn(noted.only(np.flatnonzero(~plain)), becomes, face, named)
        return first

    def _held(self, who: Integers) -> Integers:
        """The last second of each client's pins; a second before all others if it has none."""
        return np.where(self._game.stores.entry[who] == NO_ENTRY, -1, self._game.stores.expires_at[who])

    def _forgets_between(self, stretch: Stretch, face: int) -> Booleans:
        """The clients that have applied a list, and stay away between two visits until the host is forgotten."""
        forgets = np.zeros(stretch.who.size, np.bool_)
        healed = np.flatnonzero(self._roots.version[stretch.who] > 0)
        if healed.size:
            some = stretch.only(healed)
            each = ranges(some.first, some.end)
            owner = np.repeat(np.arange(healed.size), some.end - some.first)
            second = self._game.visits.second(some.who[owner], each)
            spared = 0 if self._game.least_step is None else int(self._game.least_step[face])
            away = np.diff(second) > self._game.rules.max_age[face] - spared
            forgets[healed[owner[1:][away & (owner[1:] == owner[:-1])]]] = True
        return forgets

    def _note_in_turn(self, stretch: Stretch, becomes: int, face: int, named: int) -> None:
        """Note the header at each visit in turn, if the noted root may change."""
        game, stores = self._game, self._game.stores
        max_age = int(game.rules.max_age[face])
        step = -1 if game.least_step is None else int(game.least_step[face])
        while stretch.who.size:
            who = stretch.who
            now = game.visits.second(who, stretch.first)
            renewed = now + max_age
            moved = renewed - stores.expires_at[who]
            held = self._held(who)
            self._looks.drop(who[np.maximum(held, self._roots.ends(who, held)) < now])
            changed = self._roots.adopt(who, held, now, named, renewed)
            written = changed | (stores.entry[who] != becomes) | (moved < 0) | (moved > step)
            stores.entry[who[written]], stores.expires_at[who[written]] = becomes, renewed[written]
            following = Stretch(who, stretch.first + 1, stretch.end, stretch.since, stretch.until)
            if game.locks_out(becomes):
                until = np.minimum(game.second_of(following, following.first), stores.expires_at[who] + 1)
                game.ledger.locked_out(who, now, until)
            stretch = following.only(np.flatnonzero(following.first < following.end))
