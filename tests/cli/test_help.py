"""What --help says of each command, as it reaches the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from typer.core import TyperGroup

from dynpin.cli.app import COMMANDS, command

# Rich takes a table of dynpin.toml, as [site] in a help text, for a style, and leaves it out.
_TAKEN_FOR_A_STYLE = re.compile(r"(?<!\\)\[[a-z_]+\]")


def help_texts(called: object) -> Iterator[str]:
    """The help of a command, of its options, and of the commands below it."""
    yield getattr(called, "help", None) or ""
    for parameter in getattr(called, "params", ()):
        yield getattr(parameter, "help", None) or ""
    if isinstance(called, TyperGroup):
        for each in called.commands.values():
            yield from help_texts(each)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_word_of_a_help_text_is_lost(name: str) -> None:
    assert [found for text in help_texts(command(name)) for found in _TAKEN_FOR_A_STYLE.findall(text)] == []
