"""A row of the table in test_names.py; each library has its rows in names_LIBRARY.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .world import World

__all__ = ["ASKED", "OTHER", "Row"]

ASKED, OTHER = "bank.test", "other.test"


@dataclass(frozen=True)
class Row:
    """One way in which the name that TLS verifies may differ from the name that a request is meant for.

    Attributes:
        library: the library.
        option: the option, in words.
        asked: the name that the request is meant for, canonical.
        verified: the name that TLS verifies, canonical; an IP address if it verifies that.
        send: sends the request to the server on a port, with ``Authorization: Bearer secret``.
        taken: whether the request is made if neither name is pinned; otherwise the option is refused.
    """

    library: str
    option: str
    asked: str
    verified: str
    send: Callable[[World, int], object]
    taken: bool = True

    def __str__(self) -> str:
        return f"{self.library}: {self.option}"
