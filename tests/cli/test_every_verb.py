"""What all verbs have in common: --json, and one name and one text for each option."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from dynpin.cli.app import COMMANDS, command, make_readable

from .test_help import commands_below

# Verbs that print no result of their own.
WITHOUT_JSON = {
    "run": "becomes the program that it starts",
    "hosts": "-F and -R are those of ssh-keygen; the verbs `show` and `forget` have --json",
    "hosts export": "writes a file of another program; --format json is one of them",
    "export": "writes a file of another program",
    "collect": "serves until it is stopped",
    "lab proxy": "serves until it is stopped",
    "lab site": "serves until it is stopped",
}
# Options whose name says too little without its command.
OTHER_MEANINGS = {
    "--agent": "`lab score` tests any program, the other verbs of `lab` play with clients that dynpin knows",
    "--all": "all hosts, reports, sites or scenarios",
    "--backup": "`keys list` looks at files, `rotate plan` chooses the next pins",
    "--chain": "`lint` compares it with the header, `rotate record` notes what is deployed",
    "--days": "how long reports, a token, or a simulation last",
    "--format": "more formats can be read than written",
    "--header": "of now for `rotate record`, of earlier for `guard`",
    "--host": "what is pinned, what a token is for, or where a server listens",
    "--html": "`lab run` writes two pages",
    "--inventory": "`collect` takes several",
    "--key": "the key that is deployed, inventoried, trusted, or that signs",
    "--keys": "`init` takes the chain of the server, `hosts import` the keys of Chromium's list",
    "--max-age": "`export` takes one in seconds, `simulate` compares several",
    "--name": "of a file, a header field or a policy",
    "--out": "`hosts export` writes a file, others into a folder",
    "--picture": "one kind of file, or several",
    "--roots": "`collect` reads the file, `lab site` writes it",
    "--timeout": "`lab score` waits for a whole visit",
}
_VALUE = re.compile(r"[A-Z][A-Za-z]*([-:|.][A-Za-z]+)*|[a-z0-9.-]+(\|[a-z0-9.-]+)+")


@cache
def verbs() -> dict[str, TyperCommand | TyperGroup]:
    """Every verb that does something by itself, by the words that call it, as --help shows it."""
    found: dict[str, TyperCommand | TyperGroup] = {}
    for name in COMMANDS:
        called = command(name)
        make_readable(called, called.context_class(called, info_name=name))
        found |= commands_below(called, name)
    return {
        path: each for path, each in found.items() if not isinstance(each, TyperGroup) or each.invoke_without_command
    }


def options() -> Iterator[tuple[str, TyperOption]]:
    for path, verb in verbs().items():
        yield from ((path, each) for each in verb.params if isinstance(each, TyperOption) and not each.hidden)


def test_every_verb_that_prints_a_result_takes_json() -> None:
    without = {path for path, verb in verbs().items() if not any("--json" in each.opts for each in verb.params)}
    assert without == WITHOUT_JSON.keys()


def test_every_value_is_named_in_one_spelling() -> None:
    wrong = [
        (path, each.metavar)
        for path, verb in verbs().items()
        for each in verb.params
        if not (isinstance(each, TyperOption) and each.is_flag) and not _VALUE.fullmatch(each.metavar or "")
    ]
    assert wrong == []


def test_an_argument_that_may_be_repeated_is_named_in_the_singular() -> None:
    for path, verb in verbs().items():
        for each in verb.params:
            if isinstance(each, TyperArgument) and each.nargs != 1:
                assert not (each.metavar or "S").endswith("S"), path
                assert f"{each.metavar}" in " ".join(verb.collect_usage_pieces(verb.context_class(verb)))


def test_an_option_that_may_be_repeated_says_so() -> None:
    assert [path for path, each in options() if ("Repeatable." in (each.help or "")) != each.multiple] == []


def test_an_option_has_the_same_text_in_every_command() -> None:
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for _, each in options():
        # What another option must be there for, and what the value is without it, belong to the command.
        text = re.sub(r"^With --[a-z]+: ", "", each.help or "").partition(" The default is ")[0]
        texts[each.opts[0]].add(text[:1].upper() + text[1:])
    assert {name for name, found in texts.items() if len(found) > 1} == OTHER_MEANINGS.keys()


def test_a_text_belongs_to_one_option() -> None:
    names: defaultdict[str, set[str]] = defaultdict(set)
    for _, each in options():
        names[each.help or ""].add(each.opts[0])
    assert {text for text, found in names.items() if len(found) > 1} == set()
