"""What the adapters of requests and niquests share: neither is copied, nor takes its connections from elsewhere."""

from __future__ import annotations

from typing import NoReturn

from dynpin.errors import UnenforceableContext

__all__ = ["NotCopied", "foreign_pool"]


class NotCopied:
    """Goes before the class of an adapter or a session. A copy would have the library's own contexts and adapters."""

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied, since its contexts and its store belong to this "
            "process: make another one where you need it"
        )


def foreign_pool(adapter: object) -> UnenforceableContext:
    """The error for an adapter whose own class has made a pool, or a manager of pools, that does not check the pins."""
    return UnenforceableContext(
        f"{type(adapter).__name__} takes its connection from a pool that does not check the pins; let the methods of "
        "PinnedAdapter make its managers and pools"
    )
