"""The history that the nodes of a site share, and what each node reports to send and show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dynpin.header import PublicKeyPins
from dynpin.middleware.policy import Inventory
from dynpin.middleware.policy.shared import HistoryState, SharedState, SiteDocument
from dynpin.pins import Pin

from .file import HistoryFile
from .history import Held, History, HistoryError
from .seen import Sight

if TYPE_CHECKING:
    from .repair import Saved

__all__ = ["KeptHistory", "SharedHistory", "held_by_nodes", "kept_history", "sights_of_nodes"]


class SharedHistory:
    """The history in the shared state of a site's nodes, with the methods of a history's file.

    Args:
        state: the shared state.
    """

    def __init__(self, state: SharedState) -> None:
        self.state = state

    def __str__(self) -> str:
        return f"the history in {self.state}"

    def exists(self) -> bool:
        """Whether there is a history.

        Raises:
            PolicyError: if the collector does not answer.
        """
        return self.state.fetch().history is not None

    def read(self) -> History:
        """The history, from the collector.

        Raises:
            FileNotFoundError: if there is none.
            HistoryError: if it is damaged.
            PolicyError: if the collector does not answer.
        """
        history = _history(self.state.fetch())
        if history is None:
            raise FileNotFoundError(str(self))
        return history

    def copy(self) -> History | None:
        """The history as this machine read it last, or None.

        Raises:
            HistoryError, PolicyError: if it is damaged, or if the copy cannot be read.
        """
        return _history(self.state.copy())

    def change(self, edit: Callable[[History | None], History]) -> History:
        """Edit the history, unless somebody else changes it at the same time.

        Raises:
            HistoryError: if it is damaged, or from `edit`.
            PolicyError: if the collector does not answer.
        """
        return self._change(lambda document: edit(_history(document)))

    def repair(self, edit: Callable[[Saved], History]) -> tuple[History, Path | None]:
        """Write a history from what can still be read. The damaged one is not kept.

        Raises:
            HistoryError, PolicyError: as :meth:`change` does.
        """
        from .repair import salvage  # noqa: PLC0415 - for those who have a damaged one

        def saved(document: SiteDocument) -> History:
            kept = b"" if document.history is None else document.history.model_dump_json().encode()
            return edit(salvage(kept))

        return self._change(saved), None

    def _change(self, edit: Callable[[SiteDocument], History]) -> History:
        made: list[History] = []

        def edited(document: SiteDocument, _: float) -> SiteDocument:
            made.append(edit(document))
            try:
                history = HistoryState.model_validate_json(made[-1].to_json())
            except ValidationError as error:
                raise HistoryError(f"{self} cannot hold this: {error.errors()[0]['msg']}") from None
            return document.with_changes(history=history)

        self.state.change(edited)
        return made[-1]


KeptHistory = HistoryFile | SharedHistory


def kept_history(path: Path, site: Inventory | None) -> KeptHistory:
    """The history of a site: with the collector if its nodes share a state, else in this file."""
    if site is None or site.state is None:
        return HistoryFile(path)
    return SharedHistory(SharedState(site.state))


def held_by_nodes(document: SiteDocument) -> tuple[Held, ...]:
    """The policies that clients may hold, from the nodes' own reports of what they sent."""
    return tuple(
        Held(each.policy, each.first_at, each.last_at, each.until(each.first_at), node=each.node)
        for each in document.sent()
    )


def sights_of_nodes(document: SiteDocument) -> Iterator[Sight]:
    """What each node reports to send and show."""
    for name, node in sorted(document.nodes.items()):
        chains = tuple(tuple(map(Pin.from_base64, chain)) for chain in node.chains)
        header: PublicKeyPins | None = node.policy
        yield Sight(f"node {name}", header, chains, is_live=True)


def _history(document: SiteDocument) -> History | None:
    if document.history is None:
        return None
    return History.from_json(json.dumps(document.history.model_dump(mode="json")))
