"""The numbers that a store takes: times, and limits. Every one is checked where it comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsFloat, SupportsInt

from dynpin.errors import StoreError
from dynpin.report import FIRST_SECOND, LAST_SECOND

__all__ = ["MOST_HOSTS", "MOST_SECONDS", "checked_clock", "time_of", "whole_number"]

# What SQLite can hold, and 68 years of seconds: the most that a header can ask for (RFC 7469 §2.3.3).
MOST_HOSTS, MOST_SECONDS = 2**63 - 1, 2**31
_NEEDED = "No pins can be looked up without the time"


def time_of(value: object, what: str) -> float:
    """A time as a plain float: seconds since the epoch, UTC.

    Raises:
        ValueError: if it is not a number, or is not within the years 1 to 9999.
    """
    try:
        # The type first: this runs at each look-up, and isinstance takes some 20 µs for a protocol.
        is_number = type(value) is float or isinstance(value, SupportsFloat)
        seconds = float(value) if is_number else float("nan")  # type: ignore[arg-type] # mypy forgets the two
    except (ValueError, ArithmeticError):  # a number that no float can hold, or a Decimal's signalling NaN
        seconds = float("nan")
    if not FIRST_SECOND <= seconds <= LAST_SECOND:
        raise ValueError(
            f"{what} is {str(value)[:100]}, not a time within the years 1 to 9999: give seconds since 1970"
        )
    return seconds


def whole_number(value: object, what: str, least: int, most: int) -> int:
    """A limit as a plain int.

    Raises:
        ValueError: if it is not a whole number from `least` to `most`.
    """
    try:
        # Not int() of any value: that takes the text "7" too.
        number = int(value) if isinstance(value, SupportsInt) and not isinstance(value, bool) else None
    except (ValueError, ArithmeticError):  # not a number, infinite
        number = None
    if number is None or number != value or not least <= number <= most:
        raise ValueError(f"{what} is {str(value)[:100]}, not a whole number from {least} to {most}")
    return number


def checked_clock(clock: Callable[[], float]) -> Callable[[], float]:
    """The clock, with each time checked. A wrong one is an error of the store: connections are refused.

    Raises:
        TypeError: if it is not a function.
    """
    if not callable(clock):
        raise TypeError(f"clock must be a function that returns seconds since 1970, not {clock!r}")

    def now() -> float:
        try:
            return time_of(clock(), "the time by the store's clock")
        except ValueError as error:
            raise StoreError(f"{error}. {_NEEDED}") from None
        except Exception as error:  # the user's function may raise anything; a handshake must end with a clear error
            raise StoreError(f"the store's clock failed with {type(error).__name__}: {error}. {_NEEDED}") from error

    return now
