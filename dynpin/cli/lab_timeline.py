"""A scenario's timeline, and the table of all scenarios, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dynpin.lab.picture.glyphs import FORMS
from dynpin.lab.picture.holdings import with_expiries
from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import Scenario
from dynpin.lab.timeline import Event, Outcome, Timeline, day
from dynpin.lab.with_recovery import ending

__all__ = ["show", "show_table"]

# The colours are those of the pictures: whether the outcome is good.
_STYLES = {"good": "green", "bad": "bold red", "dull": "yellow"}


def show(console: Console, scenario: Scenario, playing: Playing) -> None:
    """Print a result: the story, its events, its assertions, and the lesson."""
    console.print(Rule(Text(f" {scenario.number}  {scenario.title} ", style="bold"), align="left", style="dim"))
    console.print(Padding(Text(scenario.story), (0, 0, 1, 2)))
    if playing.timeline is None:
        console.print(Text(f"  Not played with {playing.agent}: {playing.missing}", style="yellow"))
        return
    console.print(Text(f"  With {playing.agent}", style="bold"))
    console.print(_events(playing.timeline, playing.timeline.events))
    console.print(Padding(_remarks(playing.timeline), (1, 0, 0, 0)))
    second = playing.with_recovery
    if second is not None and (happened := ending(second)):
        console.print(Text("\n  Its second ending, with recovery", style="bold"))
        console.print(_events(second, happened))
        if not second.ok:
            console.print(_remarks(second))
    others = " ".join(claim.text for claim in scenario.browsers)
    for heading, text in (("RFC 7469", scenario.rfc), ("Others", others), ("dynpin", scenario.dynpin)):
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(width=8)
        row.add_column()
        row.add_row(Text(heading, style="bold"), Text(text))
        console.print(Padding(row, (1, 0, 0, 2)))


def _events(timeline: Timeline, events: Sequence[Event]) -> Padding:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(width=1)
    table.add_column()
    before = ""
    for event in with_expiries(events, timeline.hostile_keys):
        when = day(event.at)
        sign, style = _sign(event.outcome)
        table.add_row("" if when == before else when, Text(sign, style=style), _told(timeline, event, style))
        before = when
    return Padding(table, (0, 0, 0, 2))


def _sign(outcome: Outcome | None) -> tuple[str, str]:
    """The sign and the style of a visit or another action."""
    return ("·", "dim") if outcome is None else (FORMS[outcome].sign, _STYLES[FORMS[outcome].color])


def _told(timeline: Timeline, event: Event, style: str) -> Text:
    told = Text(timeline.sentence(event), style=style if event.outcome not in (None, "served") else "")
    if event.outcome in ("protected", "locked-out") and event.reason:
        section = f" (§{event.section})" if event.section else ""
        told.append(f"\n{timeline.named(event.reason)}{section}", style="dim")
    return told


def _remarks(timeline: Timeline) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=3)
    table.add_column()
    for remark in timeline.remarks:
        mark = Text("  ✓", style="green") if remark.holds else Text("  ✗", style="bold red")
        table.add_row(mark, timeline.named(remark.text))
    return table


def show_table(console: Console, scenarios: Sequence[Scenario], playings: Sequence[Playing]) -> None:
    """Print the outcome of each scenario with each user agent."""
    agents = list(dict.fromkeys(playing.agent for playing in playings))
    found = {(playing.scenario, playing.agent): playing for playing in playings}
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(justify="right")
    table.add_column("scenario", no_wrap=True)
    for agent in agents:
        table.add_column(agent, no_wrap=True)
    for scenario in scenarios:
        cells = [_cell(found.get((scenario.name, agent))) for agent in agents]
        if any(cells):
            table.add_row(str(scenario.number), scenario.name, *cells)
        # The options of a user have rows of their own.
        in_order = [found.get((scenario.name, agent)) for agent in agents]
        told: list[dict[str, Outcome | None]] = [each.options if each else {} for each in in_order]
        for option in dict.fromkeys(name for options in told for name in options):
            shown = [_outcome(options[option]) if option in options else Text("") for options in told]
            table.add_row("", Text(f"· {option}"), *shown)
    console.print(table)
    wrong = sum(not playing.ok for playing in playings)
    played = sum(playing.timeline is not None for playing in playings)
    console.print(
        f"\n{played} playings; {f'{wrong} did not go' if wrong else 'all went'} as asserted.",
        style="bold red" if wrong else "green",
    )


def _cell(playing: Playing | None) -> Text:
    if playing is None:
        return Text("")
    if playing.timeline is None:
        return Text("not here", style="dim")
    if not playing.ok:
        return Text("✗ not so", style="bold red")
    return _outcome(playing.outcome)


def _outcome(outcome: Outcome | None) -> Text:
    sign, style = _sign(outcome)
    return Text(f"{sign} {outcome or 'played'}", style=style)
