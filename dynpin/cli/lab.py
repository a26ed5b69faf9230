"""`dynpin lab`: how pinning succeeds and fails, played on real sockets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from dynpin.cli import lab_ca, lab_score, lab_site, proxy
from dynpin.cli.consoles import text_console
from dynpin.cli.errors import fail, finding, lacking
from dynpin.cli.options import DarkOption, JsonOption, ProcessesOption
from dynpin.cli.printing import print_json, say
from dynpin.cli.progress import counting_bar
from dynpin.cli.written import check_page, picture_form, save
from dynpin.counts import counted

if TYPE_CHECKING:
    from dynpin.lab.picture import Format
    from dynpin.lab.playing import Playing
    from dynpin.lab.scenarios import Scenario

__all__ = ["app"]

app = typer.Typer(help="How pinning succeeds and fails, played on real sockets.", no_args_is_help=True)

_WIDTH = 80
_FORMS: tuple[Format, ...] = ("svg", "pdf", "png")

AgentOption = Annotated[
    list[str] | None,
    typer.Option("--agent", help="dynpin, chromium, firefox or wget2. Repeatable.", show_default=False),
]
ScenarioOption = Annotated[
    list[str] | None,
    typer.Option("--scenario", help="Only this scenario, by name or number. Repeatable.", show_default=False),
]


@app.command(name="list")
def list_(as_json: JsonOption = False) -> None:
    """List the scenarios.

    Example: dynpin lab list
    """
    known = _scenarios()
    if as_json:
        print_json([_as_json(scenario) for scenario in known.values()])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right")
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for scenario in known.values():
        table.add_row(str(scenario.number), scenario.name, scenario.title)
    console = text_console(_WIDTH)
    console.print(table)
    console.print("\nPlay one:  dynpin lab run NAME", style="dim")


@app.command()
def run(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name or number of a scenario.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Play all, with every user agent.")] = False,
    agent: AgentOption = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Draw it into this .svg, .pdf or .png.", show_default=False),
    ] = None,
    dark: DarkOption = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="With --all: write the two pages of lab report.", show_default=False)
    ] = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play a scenario with dynpin, or with other user agents; or all of them.

    Servers, sockets, certificates and clients are real; only the clock is simulated. The exit code is 1 if an assertion
    of a scenario does not hold.

    Example: dynpin lab run hotspot --picture hotspot.svg
    """
    if everything == (name is not None):
        fail("give the NAME of a scenario (dynpin lab list), or --all")
    if everything:
        if picture is not None:
            fail("--picture draws one scenario: give its NAME; the pictures of all are in the report (--html FILE)")
        _run_all(list(_scenarios().values()), agent, processes, html, as_json=as_json)
        return
    if html is not None:
        fail("--html goes with --all")
    if picture is not None and len(agent or ()) > 1:
        fail("--picture draws the timeline of one --agent")
    form = None if picture is None else picture_form(picture, _FORMS)
    scenario = _named(name or "")
    playings = _played([scenario], _agents(agent or ["dynpin"]), 1)
    if as_json:
        print_json(_as_json(scenario) | {"playings": [playing.to_dict() for playing in playings]})
    else:
        from dynpin.cli.lab_timeline import show  # noqa: PLC0415 - beside what is shown

        for playing in playings:
            show(text_console(_WIDTH), scenario, playing)
    if picture is not None and form is not None:
        _draw(picture, form, scenario, playings[0], dark=dark)
    _finish(playings)


@app.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="FILE.html", help="Where the report is written.")] = Path(
        "dynpin-lab.html"
    ),
    scenario: ScenarioOption = None,
    agent: AgentOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play all scenarios, or those that you name, and write two HTML pages about them.

    FILE.html has every picture: to read, to print, to hand out. FILE-explorer.html shows the stories step by step in a
    browser, with two clients side by side. Neither needs a network.

    Example: dynpin lab report pinning.html
    """
    chosen = {each.name: each for each in map(_named, scenario)} if scenario else _scenarios()
    _run_all(list(chosen.values()), agent, processes, file, as_json=as_json)


app.command(name="proxy")(proxy.proxy)
app.command(name="ca")(lab_ca.ca)
app.command(name="score")(lab_score.score)
app.command(name="site")(lab_site.site)


# -- playing -----------------------------------------------------------------------------------------------------------


def _run_all(
    chosen: list[Scenario], agent: list[str] | None, processes: int | None, html: Path | None, *, as_json: bool
) -> None:
    explorer = None if html is None else html.with_name(f"{html.stem}-explorer{html.suffix}")
    for page in (html, explorer):
        if page is not None:
            check_page(page)
    playings = _played(chosen, _agents(agent) if agent else None, processes)
    if as_json:
        print_json([playing.to_dict() for playing in playings])
    else:
        from dynpin.cli.lab_timeline import show_table  # noqa: PLC0415 - beside what is shown

        show_table(text_console(_WIDTH), chosen, playings)
    if html is not None and explorer is not None:
        from dynpin.lab.explorer import write_explorer  # noqa: PLC0415 - both need jinja2
        from dynpin.lab.handout import write_handout  # noqa: PLC0415

        save(html, write_handout(chosen, playings, explorer=quote(explorer.name)))
        say(f"\n{html}: {counted(len(playings), 'playing')} of {counted(len(chosen), 'scenario')}", err=as_json)
        save(explorer, write_explorer(chosen, playings, handout=quote(html.name)))
        say(f"{explorer}: the same, step by step in a browser", err=as_json)
    _finish(playings)


def _played(chosen: list[Scenario], agents: list[str] | None, processes: int | None) -> list[Playing]:
    from dynpin.lab.playing import play_all  # noqa: PLC0415 - it needs the servers and clients of the extra

    total = sum(agents is None or agent in agents for scenario in chosen for agent in scenario.agents)
    if not total:
        fail("; ".join(f"{scenario.name} is played with {', '.join(scenario.agents)}" for scenario in chosen))
    with counting_bar(total, "scenarios with agents") as advance:
        return play_all(chosen, agents, processes=processes, progress=advance)


def _finish(playings: list[Playing]) -> None:
    wrong = [f"{playing.scenario} with {playing.agent}" for playing in playings if not playing.ok]
    if wrong:
        finding(f"something that was asserted does not hold: {', '.join(wrong)}")


def _draw(file: Path, form: Format, scenario: Scenario, playing: Playing, *, dark: bool) -> None:
    if playing.timeline is None:
        fail(f"{scenario.name} could not be played, so there is nothing to draw: {playing.missing}")
    try:
        save(file, playing.picture(form, dark=dark))
    except ModuleNotFoundError as missing:
        lacking(f"a {file.suffix}", missing.name, "lab,simulate")


# -- arguments ---------------------------------------------------------------------------------------------------------


def _scenarios() -> dict[str, Scenario]:
    try:
        from dynpin.lab.scenarios import scenarios  # noqa: PLC0415 - it needs the servers and clients of the extra

        # Each scenario is a module of its own, imported here.
        return dict(scenarios())
    except ModuleNotFoundError as missing:
        lacking("the lab", missing.name, "lab")


def _named(name: str) -> Scenario:
    known = _scenarios()
    numbered = {str(scenario.number): scenario for scenario in known.values()}
    found = known.get(name) or numbered.get(name)
    if found is None:
        fail(f"there is no scenario {name!r}; dynpin lab list names them all")
    return found


def _agents(names: list[str]) -> list[str]:
    from dynpin.lab.agents import AGENTS  # noqa: PLC0415 - it needs the clients of the extra

    for name in names:
        if name not in AGENTS:
            fail(f"there is no user agent {name!r}; there are {', '.join(AGENTS)}")
    return names


def _as_json(scenario: Scenario) -> dict[str, object]:
    return {
        "number": scenario.number,
        "name": scenario.name,
        "title": scenario.title,
        "story": scenario.story,
        "rfc": scenario.rfc,
        "browsers": [asdict(claim) for claim in scenario.browsers],
        "dynpin": scenario.dynpin,
        "sources": list(scenario.sources),
        "agents": list(scenario.agents),
    }
