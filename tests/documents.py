"""How the code blocks of a document are run: what `tests/test_docs.py` stands on.

=========  ===========================================================================================
Block      What is done with it
=========  ===========================================================================================
python     executed; all blocks of a document share one namespace
python     whose first line is the name of a file, such as ``# app.py``: saved under that name, as a reader does
toml       the same
console    each ``$ command`` is run by bash and must print what follows; ``...`` stands for any text.
           It must succeed, unless ``$ echo $?`` comes next. One that ends in ``&`` goes on running.
text       what the python or sql block before it has printed
toml json  parsed
ini sh     files and commands for a machine of an operator's (systemd units, logrotate, haproxy): checked by the
logrotate  program that reads them, see `tests/operators.py`
haproxy
sql sh     what begins with ``-- on db1`` or ``# on db1`` is run on the servers of `tests/database_machines.py`
=========  ===========================================================================================

An HTML comment ``<!--- invisible-code-block: python`` is executed as well, for what readers need not see. A block of
any other kind is an error, so that none is skipped in silence.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import re
import subprocess
import threading
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, FencedCodeBlockLexer

from tests.operators import CHECKS, check

__all__ = ["Blocks", "examples_of", "file_of"]

# The name of the file that a block is, in its first line.
_FILE = re.compile(r"# ([\w-]+\.(?:py|toml))\n")
# Long, since a busy machine is not a fault of the document's.
_TIMEOUT = 300.0
# Directives that hold no code. Code stands in plain fences, where every Markdown renderer shows it.
_MARKUP = re.compile(r"\{(toctree|include|eval-rst|note|tip|important|warning|admonition|raw|image|figure)\}.*")


@dataclass
class Blocks:
    """Runs the blocks of one document, in order, in a folder of its own."""

    folder: Path
    checkout: Path
    environment: dict[str, str]
    printed: str | None = None
    _running: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])

    def evaluate(self, example: Example) -> None:
        """Run one block; AssertionError where it does not do what the document says."""
        language: str = example.region.lexemes["language"]
        match language:
            case "python" | "toml" if named := _FILE.match(example.parsed):
                (self.folder / named[1]).write_text(example.parsed)
            case "python":
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    PythonEvaluator()(example)
                self.printed = printed.getvalue()
            case "text":
                assert self.printed is not None, "a text block holds what the python block before it has printed"
                _compare(example.parsed, self.printed, "the python block before")
                self.printed = None
            case "console":
                self._console(example.parsed)
            case "toml":
                tomllib.loads(example.parsed)
            case "json":
                json.loads(example.parsed)
            case "sql":
                self.printed = example.namespace["servers"].sql(example.parsed)
            case "sh" if example.parsed.startswith("# on "):
                example.namespace["servers"].shell(example.parsed)
            case checked if checked in CHECKS:
                check(checked, example.parsed)
            case _:
                raise AssertionError(f"nothing runs a {language!r} block; tests/documents.py says which are run")

    def close(self) -> None:
        """End what was started with ``&``."""
        for process in self._running:
            process.terminate()
            process.communicate(timeout=_TIMEOUT)

    def _console(self, text: str) -> None:
        commands = _commands(text)
        status = 0
        for (command, expected), (following, _) in zip(commands, [*commands[1:], ("", "")], strict=True):
            if command.endswith("&"):
                self._start(command.removesuffix("&"), expected)
                continue
            # The subshell gives $? the value that it has in the reader's terminal.
            process = self._open(command, f"(exit {status}); {command}")
            shown, _ = process.communicate(timeout=_TIMEOUT)
            status = process.returncode
            _compare(expected, shown, command)
            assert status == 0 or following == "echo $?", f"$ {command}\nexits with {status}:\n{shown}"

    def _start(self, command: str, expected: str) -> None:
        process = self._open(command, f"exec {command}")
        self._running.append(process)
        assert process.stdout is not None
        shown = ""
        overdue = threading.Timer(_TIMEOUT, process.kill)
        overdue.start()
        try:
            while not _matches(expected, shown):
                line = process.stdout.readline()
                assert line, f"$ {command} ended, or was silent for long, after\n{shown}"
                shown += line
        finally:
            overdue.cancel()

    def _open(self, command: str, script: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", script],
            # The verbs of the Makefile belong to the checkout, all else to the reader's own folder.
            cwd=self.checkout if command.startswith("make ") else self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def examples_of(document: Path, blocks: Blocks, namespace: dict[str, object]) -> list[Example]:
    """The blocks of a Markdown document, each once, in order."""

    def parse(parsed: Document) -> Iterable[Region]:
        fences = [region for region in FencedCodeBlockLexer("[^\n]*")(parsed) if not _is_markup(region)]
        hidden = DirectiveInHTMLCommentLexer(
            "invisible-code-block", "[a-z]+", {"arguments": "language", "source": "source"}
        )
        for region in (*fences, *hidden(parsed)):
            region.parsed = region.lexemes["source"]
            region.evaluator = blocks.evaluate
            yield region

    _check_lexer(document)
    parsed = Sybil([parse]).parse(document)
    parsed.namespace.update(namespace)
    return list(parsed.examples())


def file_of(page: str, name: str) -> None:
    """Save a file of another page of the docs here, as its reader did."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text()
    Path(name).write_text(f"# {name}\n" + text.partition(f"\n# {name}\n")[2].partition("```")[0])


def _is_markup(region: Region) -> bool:
    return _MARKUP.fullmatch(region.lexemes["language"]) is not None


def _check_lexer(document: Path) -> None:
    """A block that Markdown sees and the lexer does not would be skipped in silence."""
    text = document.read_text()
    tokens = MarkdownIt().parse(text)
    indented = [token.map for token in tokens if token.type == "code_block"]
    assert not indented, f"{document.name}: indented code blocks at lines {indented}; only fenced ones are run"
    fences = sum(token.type == "fence" for token in tokens)
    lexed = len(list(FencedCodeBlockLexer("[^\n]*")(Document(text, str(document)))))
    assert fences == lexed, f"{document.name}: Markdown has {fences} fenced blocks, of which {lexed} are run"


def _commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that stands below it."""
    commands: list[tuple[str, str]] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command += "\n" + next(lines)
            commands.append((command.rstrip(), ""))
        else:
            assert commands, f"a console block begins with a command, not with {line!r}"
            command, expected = commands[-1]
            commands[-1] = (command, expected + line + "\n")
    return commands


def _matches(expected: str, shown: str) -> bool:
    return doctest.OutputChecker().check_output(_trimmed(expected), _trimmed(shown), doctest.ELLIPSIS)


def _compare(expected: str, shown: str, what: str) -> None:
    assert _matches(expected, shown), f"{what} prints\n{_trimmed(shown)}where the document has\n{_trimmed(expected)}"


def _trimmed(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())
