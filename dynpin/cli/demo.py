"""`dynpin demo`: the whole life of pins, told in chapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dynpin.cli.consoles import text_console
from dynpin.cli.errors import finding, lacking
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json

if TYPE_CHECKING:
    from dynpin.lab.timeline import Chapter

__all__ = ["demo"]

_WIDTH = 80


def demo(as_json: JsonOption = False) -> None:
    """Play a story of pinning: a bank, its client, a hostile hotspot, a rotation and a lock-out.

    Everything is real except the clock: servers and sockets on 127.0.0.1, certificates of two authorities, a store on
    disk, the collector. It is the scenario `dynpin lab run demo`, in chapters. The exit code is 0 only if every chapter
    went as expected.

    Example: dynpin demo
    """
    try:
        from dynpin.lab.playing import play_one  # noqa: PLC0415 - it needs the servers and clients of the extra
        from dynpin.lab.scenarios import scenarios  # noqa: PLC0415 - likewise

        # Each scenario is a module of its own, imported here.
        scenario = scenarios()["demo"]
    except ModuleNotFoundError as missing:
        lacking("the demo", missing.name, "lab")
    timeline = play_one(scenario, "dynpin").timeline
    chapters = timeline.chapters if timeline else []
    right = sum(chapter.ok for chapter in chapters)
    ok = right == len(chapters) > 0
    if as_json:
        print_json({"ok": ok, "steps": [chapter.to_dict(number) for number, chapter in enumerate(chapters, start=1)]})
    else:
        console = text_console(_WIDTH)
        for number, chapter in enumerate(chapters, start=1):
            console.print(_told(number, chapter))
        console.print(Rule(style="dim"))
        console.print(f"{right} of {len(chapters)} steps did what they must.", style="green" if ok else "red")
    if not ok:
        finding()


def _told(number: int, chapter: Chapter) -> Group:
    heading = Rule(Text(f" {number}  {chapter.title} ", style="bold"), align="left", style="dim")
    happened = Table.grid(padding=0)
    happened.add_column(width=4)
    happened.add_column()
    for remark in chapter.remarks:
        mark = Text("  ✓ ", style="green") if remark.holds else Text("  ✗ ", style="bold red")
        happened.add_row(mark, Text(remark.text))
    return Group(heading, happened, Padding(Text(chapter.why, style="italic dim"), (0, 2, 1, 4)))
