"""What the adapters of requests and niquests share: they are not copied, and connect to what they were asked for."""

from __future__ import annotations

from typing import NoReturn

from dynpin.errors import PinValidationError, UnenforceableContext

from .names import Names, host_of_url

__all__ = ["NotCopied", "foreign_pool", "hold_url", "text_of"]


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


def hold_url(names: Names, url: str, connected: str, refused: type[Exception]) -> None:
    """Refuse a request whose URL names a Known Pinned Host, if the library connects to another one.

    Args:
        names: those of the adapter.
        url: the URL, as text.
        connected: the host that the library connects to.
        refused: the library's own error, which is raised. Nothing was sent.
    """
    try:
        names.hold([host_of_url(url)], connected)
    except PinValidationError as violation:
        raise refused(violation) from violation


def text_of(url: object) -> str:
    """The URL of a request that is not prepared yet."""
    return url.decode(errors="replace") if isinstance(url, bytes) else str(url)
