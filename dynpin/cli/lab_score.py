"""`dynpin lab score`: test any client with the rules of RFC 7469."""

from __future__ import annotations

import shlex
import shutil
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dynpin.cli.consoles import table_console
from dynpin.cli.errors import fail, finding, lacking
from dynpin.cli.options import JsonOption, ProcessesOption
from dynpin.cli.printing import print_json, printable, say
from dynpin.cli.progress import counting_bar
from dynpin.cli.written import check_new_folder, check_page, save

if TYPE_CHECKING:
    from dynpin.lab.score import Description, Rule, Score

__all__ = ["score"]

_SIGNS = {"held": ("✓", "green"), "broken": ("✗", "bold red"), "not testable": ("·", "dim")}


def score(
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", metavar="AGENT", help="A name, a .toml file, or a command with {url}.", show_default=False
        ),
    ] = None,
    refused: Annotated[
        list[int] | None,
        typer.Option("--refused", metavar="CODE", help="An exit code of the command after a refusal. Repeatable."),
    ] = None,
    forget: Annotated[str, typer.Option("--forget", metavar="COMMAND", help="The command that forgets {host}.")] = "",
    faketime: Annotated[
        bool, typer.Option("--faketime", help="Set the command's clock with the program faketime.")
    ] = False,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", metavar="ID", help="Test only this rule. Repeatable.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds for each visit; then the agent is ended.", min=1.0, max=86_400)
    ] = 20.0,
    processes: ProcessesOption = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the result as a page.", show_default=False)
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for a broken SHOULD or MAY too.")] = False,
    export_vectors: Annotated[
        Path | None,
        typer.Option(
            "--export-vectors",
            metavar="FOLDER",
            help="Write the rules as data for other tools, and exit.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Test a client with the rules of RFC 7469, on real TLS servers on loopback.

    The exit code is 1 if it breaks a MUST of the RFC, and 2 if nothing could be tested.
    A broken SHOULD or MAY is reported; with --strict it is an error.

    Example: dynpin lab score --agent wget2
    """
    if export_vectors is not None:
        _export(export_vectors)
        return
    try:
        from dynpin.lab.score import described, score_page  # noqa: PLC0415 - they need what the extra brings
        from dynpin.lab.score import score as play  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        lacking("the scorer", missing.name, "lab")
    description = _completed(described(agent or ""), refused or [], forget, faketime=faketime)
    chosen = _chosen(rule or [])
    if html is not None:
        check_page(html)
    with counting_bar(len(chosen), "rules") as advance, _ended_alike():
        result = play(agent or "", description, chosen, timeout=timeout, processes=processes, progress=advance)
    counts = result.counts
    if as_json:
        print_json(result.to_dict())
    elif counts["held"] or counts["broken"]:
        _show(result)
    if html is not None:
        save(html, score_page(result))
    if "MUST" in result.broken_by_level or (strict and counts["broken"]):
        finding()
    if not (counts["held"] or counts["broken"]):
        fail(f"nothing could be tested: {result.verdicts[0].why}")


@contextmanager
def _ended_alike() -> Generator[None]:
    """Let SIGTERM, as from a cancelled CI job, end the agents and remove their folders, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _completed(description: Description, refused: list[int], forget: str, *, faketime: bool) -> Description:
    """The description with the values of the options."""
    if description.resident and (refused or forget or faketime):
        fail("--refused, --forget and --faketime are for a command that is run for each visit")
    more: dict[str, object] = {}
    if refused:
        more["refused"] = tuple(refused)
    if forget:
        more["forget"] = _split(forget)
    if faketime:
        if shutil.which("faketime") is None:
            fail("--faketime needs the program faketime (Debian: apt-get install faketime)")
        more |= {"command": ("faketime", "-f", "+{ahead}s", *description.command), "age": ()}
    completed = description.model_copy(update=more)
    completed.check()
    return completed


def _split(forget: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(forget))
    except ValueError as error:
        fail(f"--forget {forget}: {error}")


def _chosen(names: list[str]) -> list[Rule]:
    from dynpin.lab.score import rules  # noqa: PLC0415 - beside what is chosen

    known = {rule.id: rule for rule in rules()}
    for name in names:
        if name not in known:
            fail(f"there is no rule {name!r}; dynpin lab score --export-vectors FOLDER writes them all")
    return [rule for rule in known.values() if not names or rule.id in names]


def _export(folder: Path) -> None:
    from dynpin.lab.score import DATA  # noqa: PLC0415 - beside what is written

    check_new_folder(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail(f"{folder}: there already; name a new or an empty folder")
    try:
        shutil.copytree(DATA, folder, dirs_exist_ok=True)
    except shutil.Error as error:
        # One tuple for each file: source, target, and error.
        fail(f"{folder}: not every file could be written: {error.args[0][0][2]}")
    say(f"{folder}: the rules, their schemas and the agents; README.md says how to read them")


def _show(result: Score) -> None:
    console = table_console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "Rule", "RFC 7469", "Asked for", "What it says, and what was seen if it did not hold"):
        table.add_column(name, no_wrap=name in ("Rule", "Asked for"))
    for verdict in result.verdicts:
        sign, style = _SIGNS[verdict.outcome]
        told = Text(verdict.rule.text)
        if verdict.why:
            told.append(f"\n{verdict.outcome}: {printable(verdict.why)}", style=style)
        table.add_row(Text(sign, style=style), verdict.rule.id, verdict.rule.section, verdict.rule.level, told)
    console.print(table)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in result.counts.items())
    model = ", a model of the client" if result.model else ""
    console.print(Text(f"\n{printable(result.title)}{model}: {counts}.", style="bold"))
    broken = result.broken_by_level
    if broken:
        levels = ", ".join(f"{count} {level}" for level, count in broken.items())
        rest = "" if "MUST" in broken else " No MUST is broken; --strict makes these an error too."
        console.print(Text(f"Broken: {levels}.{rest}"))
