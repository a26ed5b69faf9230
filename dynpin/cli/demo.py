"""`dynpin demo`: the story of certificate pinning, told on real TLS sockets on loopback."""

from __future__ import annotations

from rich.console import Console, Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dynpin.cli.errors import finding, lacking
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json
from dynpin.lab.story import Step

__all__ = ["demo"]

_WIDTH = 80


def demo(as_json: JsonOption = False) -> None:
    """Play what pinning exists for: a bank, its client, a hostile hotspot, a rotation and a lock-out.

    Everything is real but the clock: servers and sockets on 127.0.0.1, certificates of two authorities, a store on
    disk. Exit code 0 only when every step did what it must.
    """
    try:
        from dynpin.lab.demo import demo as stage  # noqa: PLC0415 - it needs the servers and clients of the extra
    except ModuleNotFoundError as missing:
        lacking("the demo", missing.name, "lab")
    console = Console(width=_WIDTH, highlight=False)
    steps: list[Step] = []
    with stage() as played:
        for step in played.steps():
            steps.append(step)
            if not as_json:
                console.print(_picture(len(steps), step))
    right = sum(step.ok for step in steps)
    if as_json:
        told = [step.as_json(number) for number, step in enumerate(steps, start=1)]
        print_json({"ok": right == len(steps), "steps": told})
    else:
        console.print(Rule(style="dim"))
        console.print(
            f"{right} of {len(steps)} steps did what they must.", style="green" if right == len(steps) else "red"
        )
    if right < len(steps):
        finding()


def _picture(number: int, step: Step) -> Group:
    lines: list[Rule | Padding | Table] = [
        Rule(Text(f" {number}  {step.title} ", style="bold"), align="left", style="dim")
    ]
    for text, right in step.happened:
        mark = Text("✓ " if right else "✗ ", style="green" if right else "bold red")
        lines.append(_hanging(mark, text))
    lines.append(Padding(Text(step.why, style="italic dim"), (0, 2, 1, 4)))
    return Group(*lines)


def _hanging(mark: Text, text: str) -> Table:
    """A line behind its mark; what does not fit goes on below the text, not below the mark."""
    body = text.lstrip()
    row = Table.grid(padding=0)
    row.add_column(width=4 + len(text) - len(body))
    row.add_column()
    row.add_row(Text.assemble("  ", mark), Text(body))
    return row
