"""Print the findings of the linter for a person in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.text import Text

from dynpin.cli.consoles import text_console
from dynpin.cli.printing import printable
from dynpin.counts import counted
from dynpin.deploy.lint import Finding, HeaderField, Severity

__all__ = ["show_findings"]

_STYLES: dict[Severity, str] = {"info": "cyan", "warning": "yellow", "error": "red", "critical": "bold white on red"}


def show_findings(
    fields: Sequence[HeaderField], results: Sequence[tuple[HeaderField, Finding]], others: int = 0
) -> None:
    """Print the findings for a person: each header, its faults marked in it, then reason and fix.

    Args:
        fields: the checked fields.
        results: the findings, each with its field.
        others: how many findings are printed elsewhere; they count too.
    """
    console = text_console()
    for each in fields:
        mine = [found for other, found in results if other is each]
        if each.value is not None or mine:
            # In one line, so that it can be copied into a server's configuration.
            console.print(_marked(each, mine), soft_wrap=True)
        for found in mine:
            console.print()
            console.print(Text.assemble((f" {found.severity} ", _STYLES[found.severity]), " ", (found.fault, "bold")))
            if found.span and each.value and found.span != (0, len(each.value)):
                piece = printable(each.value[found.span[0] : found.span[1]])
                console.print(Text(f"  > {piece if len(piece) < 400 else piece[:397] + '...'}", style="dim"))
            console.print(_paragraph(printable(found.message), console.width))
            console.print(_paragraph(f"RFC 7469 §{found.section}. {found.effect}", console.width, "Why   "))
            console.print(_paragraph("\n".join(map(printable, found.fix.split("\n"))), console.width, "Fix   "))
        console.print()
    count = len(results) + others
    console.print("No fault found." if not count else f"{counted(count, 'finding')}.")


def _paragraph(text: str, width: int, label: str = "") -> Text:
    """Wrapped lines; each line of the text begins a new line."""
    lines: list[str] = []
    for number, line in enumerate(text.strip().split("\n")):
        indent = " " * (2 + len(label) + len(line) - len(line.lstrip()))
        lines += textwrap.wrap(
            f"{label}{line}" if not number else line.lstrip(),
            width,
            initial_indent=indent if number else "  ",
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,  # keep commands and pins in one piece for copying
        )
    return Text("\n".join(lines))


def _marked(each: HeaderField, findings: Sequence[Finding]) -> Text:
    if each.value is None:
        return Text(printable(each.source), "bold")
    text = Text.assemble((f"{each.name}: ", "bold"), printable(each.value))
    start = len(each.name) + 2
    for found in reversed(findings):
        if found.span and found.span != (0, len(each.value)):
            text.stylize(f"underline {_STYLES[found.severity]}", start + found.span[0], start + found.span[1])
    return text if each.source == "header" else Text(f"{printable(each.source)}\n").append_text(text)
