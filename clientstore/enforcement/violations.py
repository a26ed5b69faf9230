"""Find the violation inside the exception that an HTTP library raises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from dynpin.errors import PinValidationError

__all__ = ["pin_violation"]


def pin_violation(error: BaseException | None) -> PinValidationError | None:
    """The :class:`~dynpin.PinValidationError` behind an exception of any HTTP library, or None.

    >>> try:
    ...     client.get("https://bank.test/")  # doctest: +SKIP
    ... except httpx.ConnectError as error:
    ...     violation = pin_violation(error)
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        if isinstance(current, PinValidationError):
            return current
        seen.add(id(current))
        waiting += _behind(current)
    return None


def _behind(error: BaseException) -> Iterator[BaseException | None]:
    """The exceptions inside one: cause, context, urllib3's `reason`, and the args of requests and aiohttp."""
    yield error.__cause__
    yield error.__context__
    for held in (getattr(error, "reason", None), getattr(error, "os_error", None), *error.args):
        if isinstance(held, BaseException):
            yield held
    if isinstance(error, BaseExceptionGroup):
        yield from cast("BaseExceptionGroup[BaseException]", error).exceptions
