"""What --help says of each command, as it reaches the terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise

import pytest
from typer.core import TyperCommand, TyperGroup

from dynpin.cli.app import COMMANDS, command, make_readable

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


def commands_below(called: object, path: str) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
    """A command and those below it, each with the words that call it."""
    assert isinstance(called, TyperCommand | TyperGroup)
    yield path, called
    if isinstance(called, TyperGroup):
        for name, each in called.commands.items():
            yield from commands_below(each, f"{path} {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_an_example_that_it_can_read(name: str) -> None:
    for path, each in commands_below(command(name), f"dynpin {name}"):
        examples = re.findall(r"^Example: (dynpin .+)$", each.help or "", re.MULTILINE)
        # A group that does nothing by itself leads to the commands below it.
        assert examples or (isinstance(each, TyperGroup) and not each.invoke_without_command), path
        for example in examples:
            assert example.startswith(path)
            each.make_context(path, shlex.split(example.removeprefix(path)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_paragraph_is_one_line_that_the_terminal_breaks(name: str) -> None:
    called = command(name)
    make_readable(called, called.context_class(called, info_name=name))
    for _, each in commands_below(called, name):
        assert not [line for line, after in pairwise((each.help or "").split("\n")) if line and after]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_argument_is_named_in_capitals_and_no_value_by_a_type_of_python(name: str) -> None:
    called = command(name)
    make_readable(called, called.context_class(called, info_name=name))
    for path, each in commands_below(called, name):
        each.rich_markup_mode = None
        text = each.get_help(each.context_class(each, info_name=path))
        assert not re.search(r"[{\[][a-z_]+[}\]]|\[\[|<%", text.partition("\n")[0]), text
        assert "<list" not in text.partition("Options:")[2]
        assert "<%" not in text
