"""`dynpin recovery`: the keys and the signed list that let locked-out clients in again."""

from __future__ import annotations

import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.options import AcceptClockOption, JsonOption, NowOption, moment
from dynpin.cli.passphrase import PassphraseFileOption, passphrase
from dynpin.cli.printing import print_json, say
from dynpin.cli.recovery_publish import catch_up, publish, refresh, status
from dynpin.cli.recovery_shared import (
    DEFAULT_FOLDER,
    FolderOption,
    KeysOption,
    PublishedOption,
    inside,
    refusal_ends,
    refuse_clock,
    signers_of,
)
from dynpin.counts import counted
from dynpin.deploy.recovery import (
    OFFLINE,
    ROLES,
    Repository,
    compare,
    create,
    listed_by_entries,
    listed_by_inventory,
)
from dynpin.errors import DynpinError
from dynpin.files import read_file
from dynpin.pin_list import PinList

if TYPE_CHECKING:
    from dynpin.pin_list import ListedHost

__all__ = ["app"]

app = typer.Typer(
    help="Sign a list of the keys of your hosts, so that locked-out clients can connect again.",
    no_args_is_help=True,
)

_KEPT = """\
Where to keep what
  root-*    in different buildings, one key in each. You need them only to change keys.
  targets-* offline too, at a place that you can reach at night: they sign the list on the day when your keys are lost.
  snapshot and timestamp are not encrypted and may stay on the machine that publishes. A thief who has them and
            controls the network can keep an old list in place, until you replace them (rotate-keys). He cannot make
            a list.
  Remove each from {keys} when it is in its place. Keep the passphrase apart from all of them."""
_NEXT = """\
Next
  1. dynpin recovery sign dynpin.toml{folder}
  2. dynpin recovery publish /var/www/recovery{folder}
  3. In dynpin.toml, so that clients note it while all is well:
     [recovery]
     root = "{root}"
     uri = "https://…/recovery"
  4. Daily, by cron:  dynpin recovery refresh /var/www/recovery{folder}"""


@app.command()
def init(
    folder: FolderOption = DEFAULT_FOLDER,
    threshold: Annotated[
        int, typer.Option("--threshold", help="How many keys must sign a root, or a list.", min=1)
    ] = 1,
    of: Annotated[int, typer.Option("--of", help="How many keys there are for each.", min=1)] = 1,
    passphrase_file: PassphraseFileOption = None,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the keys, and the root that headers name. Overwrites nothing.

    Example: dynpin recovery init --threshold 2 --of 3
    """
    with refusal_ends():
        made = create(folder, threshold=threshold, of=of, passphrase=passphrase(passphrase_file), now=moment(now))
        root = made.recovery("https://example.invalid/").root_text
    files = sorted(made.keys.iterdir())
    if as_json:
        print_json({"root": root, "threshold": threshold, "keys": [str(file) for file in files]})
        return
    for file in files:
        _say_key(file)
    if made.superseded.is_dir():
        say(f"Keys that were there and that no root names are now in {made.superseded}.")
    say(f"\n{_KEPT.format(keys=made.keys)}")
    say(f"\n{_NEXT.format(root=root, folder=inside(folder))}")


@app.command()
def sign(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="The sources of the list: dynpin.toml files, or tables of pins (.json, .jsonl, .csv). Without any, "
            "the pending files are signed.",
            show_default=False,
        ),
    ] = None,
    folder: FolderOption = DEFAULT_FOLDER,
    keys: KeysOption = None,
    passphrase_file: PassphraseFileOption = None,
    other: Annotated[
        Path | None,
        typer.Option(
            "--with",
            metavar="FOLDER",
            help="Another copy of the folder: its signatures for the pending files are added.",
            show_default=False,
        ),
    ] = None,
    published: PublishedOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Drop another pending list with its signatures.")] = False,
    above: Annotated[
        int,
        typer.Option(
            "--above",
            metavar="VERSION",
            help="Give the list a version above this one, which a thief has signed.",
            min=0,
        ),
    ] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    accept_clock: AcceptClockOption = False,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a new list: it shows the changes, and asks. If more signatures are needed, the list waits for them.

    Take the folder to the next machine, and run the same command without FILE: it shows the pending list or root, and
    asks. The same list again adds a signature.

    Example: dynpin recovery sign dynpin.toml
    """
    with refusal_ends():
        repository = Repository(folder)
        place = published or repository.published_to
        if place is not None:
            compare(repository, place)
        at = refuse_clock(repository, now, is_right=accept_clock)
        merged = 0 if other is None else repository.merge(Repository(other))
        pins = _list_of(sources, at) if sources else None
        changes = repository.changes(pins)
        if changes:
            _ask(changes, yes=yes, err=as_json)
        if pins is not None:
            repository.propose(pins, now=at, replace=replace, above=above)
        added = repository.add_signatures(signers_of(repository, keys, passphrase_file, of=OFFLINE))
        waiting = repository.pending()
    if not waiting:
        fail("nothing waits for signatures: name the dynpin.toml files for the list")
    if as_json:
        print_json({"changes": changes, "pending": [asdict(each) for each in waiting]})
    else:
        for each in waiting:
            say(str(each))
    if not added and not merged and any(each.missing for each in waiting):
        finding("none of these keys adds a signature: name the files of others with --key")
    if not as_json:
        _say_next(repository)


def _list_of(sources: list[Path], now: float) -> PinList:
    hosts: dict[str, ListedHost] = {}
    origins: dict[str, Path] = {}
    for source in sources:
        for host, listed in _listed(source, now).items():
            if hosts.setdefault(host, listed) != listed:
                fail(
                    f"{origins[host]} and {source} disagree about {host}, and a list has one entry for it. "
                    "Name all its keys in one of them, and give that one"
                )
            origins.setdefault(host, source)
    return PinList(hosts)


def _ask(changes: list[str], *, yes: bool, err: bool) -> None:
    for line in changes:
        say(line, err=err)
    if not yes:
        if not sys.stdin.isatty():
            fail("there is no terminal to ask at: read the changes above, and give --yes")
        if not typer.confirm("Sign this?", err=err):
            fail("nothing was signed")


def _listed(source: Path, now: float) -> dict[str, ListedHost]:
    if source.suffix not in (".json", ".jsonl", ".csv"):
        from dynpin.middleware.policy import read_inventory  # noqa: PLC0415

        inventory = read_inventory(source)
        if inventory.mode == "report-only":
            say(
                f"dynpin: {source} is report-only; a client that takes or follows the list refuses other keys", err=True
            )
        return listed_by_inventory(inventory, now)
    from dynpin.clientstore.store.formats import read_csv, read_json, read_jsonl  # noqa: PLC0415

    read = {".json": read_json, ".jsonl": read_jsonl, ".csv": read_csv}[source.suffix]
    try:
        text = read_file(source).decode("utf-8")
        return listed_by_entries(read(io.StringIO(text), now=now))
    except UnicodeDecodeError:
        fail(f"{source} is not UTF-8 text: save it as such")
    except (DynpinError, ValueError) as error:
        fail(f"{source}: {error}")


@app.command("rotate-keys")
def rotate_keys(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="ROLE", help="Roles: root, targets, snapshot, timestamp. Without any, all."),
    ] = None,
    folder: FolderOption = DEFAULT_FOLDER,
    threshold: Annotated[
        int | None,
        typer.Option("--threshold", help="How many keys must sign a root, or a list.", min=1, show_default="as before"),
    ] = None,
    of: Annotated[
        int | None, typer.Option("--of", help="How many keys there are for each.", min=1, show_default="as before")
    ] = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseFileOption = None,
    published: PublishedOption = None,
    accept_clock: AcceptClockOption = False,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace keys, stolen or lost ones first: it makes a new root, which the old root's keys must sign.

    Clients continue with what they have noted: the header names version 1 for ever.

    Example: dynpin recovery rotate-keys timestamp
    """
    unknown = [part for part in parts or () if part not in ROLES]
    if unknown:
        fail(f"{unknown[0]} is not a role; there are {', '.join(ROLES)}")
    roles = parts or [*ROLES]
    with refusal_ends():
        repository = Repository(folder)
        place = published or repository.published_to
        if place is not None:
            compare(repository, place, replaced=roles)
        at = refuse_clock(repository, now, is_right=accept_clock)
        before = repository.root().signed.roles
        old = signers_of(repository, keys, passphrase_file, of=OFFLINE)
        secret = passphrase(passphrase_file) if {*OFFLINE} & {*roles} else b""
        files = repository.propose_keys(roles, threshold=threshold, of=of, passphrase=secret, now=at, signers=old)
        coming, waiting = repository.waiting.coming_root(), repository.pending()
    if as_json:
        print_json({"keys": [str(file) for file in files], "pending": [asdict(each) for each in waiting]})
        return
    for file in files:
        _say_key(file)
    for role in roles:
        was, comes = before[role], coming.roles[role]
        if (was.threshold, len(was.keyids)) != (comes.threshold, len(comes.keyids)):
            held = counted(len(comes.keyids), "key")
            say(f"{role}: {comes.threshold} of {held}, not {was.threshold} of {len(was.keyids)}")
    for each in waiting:
        if each.missing:
            say(f"{each}: dynpin recovery sign --key FILE{inside(folder)}")
    _say_next(repository)


def _say_key(file: Path) -> None:
    say(f"{file}{'  (encrypted)' if file.name.startswith(OFFLINE) else ''}")


def _say_next(repository: Repository) -> None:
    if not any(each.missing for each in repository.pending()):
        say(f"\nNext: dynpin recovery publish {repository.published_to or 'FOLDER'}{inside(repository.folder)}")


app.command()(publish)
app.command()(refresh)
app.command("catch-up")(catch_up)
app.command()(status)
