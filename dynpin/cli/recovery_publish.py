"""`dynpin recovery publish`, `refresh`, `catch-up` and `status`: the files that clients read, and their faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import finding
from dynpin.cli.options import AcceptClockOption, JsonOption, NowOption, moment
from dynpin.cli.printing import print_json, say
from dynpin.cli.recovery_shared import (
    DEFAULT_FOLDER,
    FolderOption,
    KeysOption,
    inside,
    refusal_ends,
    refuse_clock,
    signers_of,
)
from dynpin.counts import counted
from dynpin.deploy import recovery as signed_lists
from dynpin.deploy.recovery import (
    ONLINE,
    Refused,
    Repository,
    SignedFiles,
    closed_folders,
    compare,
    complete,
    differing,
    expiries,
    open_to_others,
    refuse_unpublished,
    strays,
)
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from tuf.api.metadata import Root  # pyright: ignore[reportPrivateImportUsage]

    from dynpin.deploy.recovery import Expiry

__all__ = ["catch_up", "publish", "refresh", "status"]

_SERVED = "The folder that a web server serves."
TargetArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help=_SERVED)]
OptionalTargetArgument = Annotated[Path | None, typer.Argument(metavar="FOLDER", help=_SERVED, show_default=False)]


def publish(
    target: TargetArgument,
    folder: FolderOption = DEFAULT_FOLDER,
    keys: KeysOption = None,
    accept_clock: AcceptClockOption = False,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the static files that clients read. Any web server, CDN or USB stick will do; none need be trusted.

    If clients would refuse the files, nothing is written: the exit code is 1, with what to do.

    Example: dynpin recovery publish /var/www/recovery
    """
    with refusal_ends():
        repository = Repository(folder)
        above = compare(repository, target)
        if repository.pending() or repository.files.faults():
            at = refuse_clock(repository, now, is_right=accept_clock)
            complete(repository, signers_of(repository, keys, None, of=ONLINE), now=at, above=above)
        changed = signed_lists.publish(repository, target)
        signed = repository.signed()
    problems = [each.problem for each in expiries(signed, moment(now)) if each.problem is not None]
    if as_json:
        print_json({"folder": str(target), "written": changed, "problems": problems})
    else:
        say(f"{target}: {counted(len(changed), 'file')} written")
    _say_closed(target)
    _end_with(problems)


def refresh(
    target: OptionalTargetArgument = None,
    folder: FolderOption = DEFAULT_FOLDER,
    keys: KeysOption = None,
    accept_clock: AcceptClockOption = False,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a new timestamp that confirms the list, for cron. It needs only the key of timestamp.

    A snapshot that expires within a month is signed again, if its key is there too.

    Example: dynpin recovery refresh /var/www/recovery
    """
    with refusal_ends():
        repository = Repository(folder)
        if target is not None:
            refuse_unpublished(repository, target)
        place = target or repository.published_to
        above = 0 if place is None else compare(repository, place)
        at = refuse_clock(repository, now, is_right=accept_clock)
        signed_lists.refresh(repository, signers_of(repository, keys, None, of=ONLINE), now=at, above=above)
        if target is not None:
            signed_lists.publish(repository, target)
        signed = repository.signed()
    until = rfc3339(signed["timestamp"].expires.timestamp())
    problems = [each.problem for each in expiries(signed, at) if each.problem is not None]
    if as_json:
        print_json({"timestamp_expires_at": until, "problems": problems})
    else:
        say(f"the timestamp is good until {until}")
        if target is None:
            say(f"\nNext: dynpin recovery publish {place or 'FOLDER'}{inside(folder)}")
    if target is not None:
        _say_closed(target)
    _end_with(problems)


def catch_up(target: TargetArgument, folder: FolderOption = DEFAULT_FOLDER, as_json: JsonOption = False) -> None:
    """Copy what is published: for a folder from a backup, and after two copies of it have signed.

    Only files that the keys have signed are copied. Replaced files are moved to the folder superseded.

    Example: dynpin recovery catch-up /var/www/recovery
    """
    with refusal_ends():
        repository = Repository(folder)
        taken = signed_lists.catch_up(repository, target)
        must_publish = bool(repository.pending() or repository.files.faults())
    if as_json:
        print_json({"copied": taken, "must_publish": must_publish})
        return
    for file in taken:
        say(f"{file} was copied")
    if not taken:
        say(f"{target} has nothing that {folder} lacks")
    if must_publish:
        say(f"\nNext: dynpin recovery publish {target}{inside(folder)}")


def status(
    target: OptionalTargetArgument = None,
    folder: FolderOption = DEFAULT_FOLDER,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what expires when, and what is pending, and compare the folder that is served with this one.

    The default FOLDER is the one that was published to last, if this machine has it. The exit code is 1 if something
    must be done.

    Example: dynpin recovery status /var/www/recovery
    """
    at = moment(now)
    with refusal_ends():
        repository = Repository(folder)
        place = target or repository.published_to
        root, ends, pins = repository.root().signed, expiries(repository.signed(), at), repository.pins()
        name = repository.recovery("https://example.invalid/").root_text
        problems = [*dict.fromkeys(_problems(repository, place, ends))]
    if as_json:
        rows = [
            {
                "role": each.role,
                "version": each.version,
                "expires_at": rfc3339(each.expires_at),
                "threshold": root.roles[each.role].threshold,
                "keys": len(root.roles[each.role].keyids),
            }
            for each in ends
        ]
        hosts = 0 if pins is None else len(pins.hosts)
        where = None if place is None else str(place)
        print_json({"root": name, "hosts": hosts, "published_to": where, "roles": rows, "problems": problems})
    else:
        _show(name, place or repository.place, ends, root)
    if problems:
        finding(None if as_json else "\n        ".join(problems))


def _problems(repository: Repository, place: Path | None, ends: list[Expiry]) -> Iterator[str]:
    """What must be done, one sentence each."""
    publishing = f"Do: dynpin recovery publish {place or 'FOLDER'}{inside(repository.folder)}"
    pending = repository.pending()
    for each in pending:
        yield (
            f"{each}: dynpin recovery sign --key FILE"
            if each.missing
            else f"{each}, and is not published. {publishing}"
        )
    if not repository.files.newest("targets"):
        if not pending:
            yield "there is no list yet: dynpin recovery sign dynpin.toml"
    elif not pending:
        yield from (f"{fault}. {publishing}" for fault in repository.files.faults())
    yield from (each.problem for each in ends if each.problem is not None)
    yield from open_to_others(repository.keys, sorted(repository.keys.glob("*.key.pem")))
    if place is None:
        if repository.place is None and not pending and repository.files.newest("targets"):
            yield f"the list has not been published. {publishing}"
        return
    try:
        compare(repository, place)
    except Refused as error:
        yield str(error)
        return
    planted, lacking = strays(repository, place), differing(repository, place)
    yield from planted
    if not planted:  # what they lead to is nothing that publishing ends
        yield from (f"{place} is not whole: {fault}. {publishing}" for fault in SignedFiles(place).faults())
    if lacking:
        yield f"{place} is behind this folder, by {', '.join(lacking[-3:])}. {publishing}"
    yield from (f"a web server cannot read {each}: chmod a+rx {each}" for each in closed_folders(place))


def _show(name: str, place: Path | None, ends: list[Expiry], root: Root) -> None:
    from rich.table import Table  # noqa: PLC0415 - beside what is shown

    from dynpin.cli.consoles import table_console  # noqa: PLC0415

    say(f"recovery-root {name}")
    if place is not None:
        say(f"published to  {place}{'' if place.is_dir() else ', which is not on this machine'}")
    table = Table(box=None, pad_edge=False)
    for column in ("role", "version", "keys", "expires"):
        table.add_column(column, overflow="fold")
    for each in ends:
        role = root.roles[each.role]
        needed = f"{role.threshold} of {len(role.keyids)}"
        table.add_row(each.role, str(each.version), needed, rfc3339(each.expires_at))
    table_console().print(table)


def _say_closed(target: Path) -> None:
    for each in closed_folders(target):
        say(f"dynpin: a web server cannot read {each}, unless it is its own: chmod a+rx {each}", err=True)


def _end_with(problems: list[str]) -> None:
    if problems:
        finding("\n        ".join(problems))
