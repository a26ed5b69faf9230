"""Lengths of time: in words, and read from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin.durations import duration, parse_duration

IN_WORDS = [
    (-5, "0 seconds"),
    (0, "0 seconds"),
    (0.9, "0 seconds"),
    (1, "1 second"),
    (100, "100 seconds"),
    (300, "5 minutes"),
    (5400, "90 minutes"),
    (3600, "1 hour"),
    (90_000, "25 hours"),
    (86_400, "1 day"),
    (5_184_000, "60 days"),
    (31_536_000, "1 year"),
    (631_138_519, "20 years"),
]


@pytest.mark.parametrize(("seconds", "words"), IN_WORDS)
def test_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.integers(0, 10**9))
def test_what_is_in_words_is_read_back_to_a_third_at_most(seconds: int) -> None:
    read = parse_duration(duration(seconds))
    assert read <= seconds < read * 4 / 3 + 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1 second", 1), ("90 minutes", 5400), ("12 Hours", 43_200), ("30days", 2_592_000), (" 2 weeks ", 1_209_600)],
)
def test_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "a month", "30", "1.5 days", "-1 day", "30 daysx", "1 day 2 hours", "٣ days"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="not a length of time"):
        parse_duration(text)
