"""Numbers of things, as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dynpin.counts import counted, plural

IN_WORDS = [(0, "0 keys"), (1, "1 key"), (2, "2 keys"), (2_000, "2,000 keys"), (-1, "-1 keys")]


@pytest.mark.parametrize(("number", "words"), IN_WORDS)
def test_a_number_of_things(number: int, words: str) -> None:
    assert counted(number, "key") == words
    assert plural(number, "key") == words.split()[1]


# A plural that is made by hand: an s (or none) by a comparison with 1.
BY_HAND = re.compile(r"""['"]s['"] if [^{}]*!= 1\b|== 1 else ['"]s['"]|['"]s['"]\s*(?:\*|\[)""")


@pytest.mark.parametrize("text", ["{'' if n == 1 else 's'}", "{'s' if n != 1 else ''}", "{'s' * (n != 1)}"])
def test_a_plural_by_hand_is_noticed(text: str) -> None:
    assert BY_HAND.search(text)


def test_no_plural_is_made_by_hand() -> None:
    root = Path(__file__).parents[1]
    files = [file for room in ("dynpin", "middleware", "clientstore") for file in sorted((root / room).rglob("*.py"))]
    assert len(files) > 300
    found = [str(file.relative_to(root)) for file in files if BY_HAND.search(file.read_text())]
    assert found == []
