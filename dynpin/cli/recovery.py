"""`dynpin recovery`: the keys and the signed list that let clients in again which are locked out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail, finding, lacking, reason_of
from dynpin.cli.options import JsonOption, NowOption, moment
from dynpin.cli.passphrase import PassphraseFileOption, passphrase, passphrase_of_keys
from dynpin.cli.printing import print_json, say
from dynpin.errors import DynpinError
from dynpin.report import rfc3339

try:
    from dynpin.deploy.recovery import (
        OFFLINE,
        ONLINE,
        ROLES,
        Repository,
        create,
        differences,
        expiries,
        listed_by_entries,
        listed_by_inventory,
        read_signers,
    )
except ModuleNotFoundError as error:
    lacking("dynpin recovery", error.name, "recovery")

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]
    from tuf.api.metadata import Root  # pyright: ignore[reportPrivateImportUsage]

    from dynpin.deploy.recovery import Expiry
    from dynpin.pin_list import ListedHost

__all__ = ["app"]

app = typer.Typer(
    help="Sign which keys hold for your hosts, so that clients which are locked out let themselves in again.",
    no_args_is_help=True,
)

_KEPT = """\
Where to keep what
  root-*    to places that do not burn down together, one key to each. They are needed to change keys, and for nothing
            else.
  targets-* offline too, where you can reach them at night: they sign the list on the day on which your keys are lost.
  snapshot and timestamp are not encrypted and may stay on the machine that publishes. Who steals them can keep an old
            list in place where he also holds the way, until you replace them (rotate-keys); he can write none.
  Remove each from {keys} once it is in its place. The passphrase belongs to none of them."""
_NEXT = """\
Next
  1. dynpin recovery sign dynpin.toml{folder}
  2. dynpin recovery publish /var/www/recovery{folder}
  3. In dynpin.toml, so that clients note it while all is well:
     [recovery]
     root = "{root}"
     uri = "https://…/recovery"
  4. Daily, by cron:  dynpin recovery refresh /var/www/recovery{folder}"""

FolderOption = Annotated[Path, typer.Option("--in", help="The folder of keys and signed files.")]
KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", help="A private half. May be repeated. Without it, those in the folder keys.", show_default=False
    ),
]
ThresholdOption = Annotated[int, typer.Option("--threshold", help="How many keys must sign a root, or a list.", min=1)]
OfOption = Annotated[int, typer.Option("--of", help="How many keys there are of each.", min=1)]
DEFAULT_FOLDER = Path("recovery")


@app.command()
def init(
    folder: FolderOption = DEFAULT_FOLDER,
    threshold: ThresholdOption = 1,
    of: OfOption = 1,
    passphrase_file: PassphraseFileOption = None,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the keys, and the root that headers name. Nothing is overwritten.

    Example: dynpin recovery init --threshold 2 --of 3
    """
    try:
        made = create(folder, threshold=threshold, of=of, passphrase=passphrase(passphrase_file), now=moment(now))
        root = made.recovery("https://example.invalid/").root_text
    except (DynpinError, OSError, ValueError) as error:
        fail(reason_of(error))
    files = sorted(made.keys.iterdir())
    if as_json:
        print_json({"root": root, "threshold": threshold, "keys": [str(file) for file in files]})
        return
    for file in files:
        say(f"{file}{'  (encrypted)' if file.name.startswith(OFFLINE) else ''}")
    say(f"\n{_KEPT.format(keys=made.keys)}")
    where = "" if folder == DEFAULT_FOLDER else f" --in {folder}"
    say(f"\n{_NEXT.format(root=root, folder=where)}")


@app.command()
def sign(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]…",
            help="What the list is made from: dynpin.toml files, or tables of pins (.json, .jsonl, .csv). Without any, "
            "add signatures to what waits for them.",
            show_default=False,
        ),
    ] = None,
    folder: FolderOption = DEFAULT_FOLDER,
    keys: KeysOption = None,
    passphrase_file: PassphraseFileOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    now: NowOption = None,
) -> None:
    """Sign a new list: it shows what changes, and asks. Where more signatures are needed, it waits for them.

    Take the folder to the next machine, and run the same without FILE there.

    Example: dynpin recovery sign dynpin.toml
    """
    at = moment(now)
    try:
        repository = Repository(folder)
        if sources:
            _propose(repository, sources, at, yes=yes)
        added = repository.add_signatures(_signers(repository, keys, passphrase_file, of=OFFLINE))
        waiting = repository.pending()
    except (DynpinError, OSError, ValueError) as error:
        fail(reason_of(error))
    if not waiting:
        fail("nothing waits for signatures: name the dynpin.toml files that the list is made from")
    for each in waiting:
        needs = f"needs {each.missing} more" if each.missing else "is signed by enough keys"
        say(f"version {each.version} of {'the root' if each.role == 'root' else 'the list'} {needs}")
    if not added:
        finding("none of these keys adds a signature: name the files of others with --key")
    if not any(each.missing for each in waiting):
        say("\nNext: dynpin recovery publish FOLDER")


def _propose(repository: Repository, sources: list[Path], now: float, *, yes: bool) -> None:
    from dynpin.pin_list import PinList  # noqa: PLC0415 - beside what it is made from

    hosts: dict[str, ListedHost] = {}
    for source in sources:
        hosts |= _listed(source, now)
    pins = PinList(hosts)
    changes = differences(repository.pins(), pins)
    for line in changes or [f"nothing changes: {len(pins.hosts)} hosts, signed anew"]:
        say(line)
    if not yes:
        if not sys.stdin.isatty():
            fail("there is no terminal to ask at: look at what changes above, and give --yes")
        if not typer.confirm("Sign this list?"):
            fail("nothing was signed")
    repository.propose(pins, now=now)


def _listed(source: Path, now: float) -> dict[str, ListedHost]:
    if source.suffix not in (".json", ".jsonl", ".csv"):
        from dynpin.middleware.policy import read_inventory  # noqa: PLC0415

        return listed_by_inventory(read_inventory(source), now)
    from dynpin.clientstore.store.formats import read_csv, read_json, read_jsonl  # noqa: PLC0415

    read = {".json": read_json, ".jsonl": read_jsonl, ".csv": read_csv}[source.suffix]
    with source.open(encoding="utf-8") as lines:
        return listed_by_entries(read(lines, now=now))


@app.command()
def publish(
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that a web server serves.")],
    folder: FolderOption = DEFAULT_FOLDER,
    keys: KeysOption = None,
    now: NowOption = None,
) -> None:
    """Write the static files that clients read: any web server, CDN or stick will do, and none need be trusted.

    Example: dynpin recovery publish /var/www/recovery
    """
    try:
        repository = Repository(folder)
        if repository.pending() or "timestamp" not in repository.signed():
            repository.complete(_signers(repository, keys, None, of=ONLINE), now=moment(now))
        changed = repository.publish(target)
    except (DynpinError, OSError, ValueError) as error:
        fail(reason_of(error))
    say(f"{target}: {len(changed)} file{'' if len(changed) == 1 else 's'} written")


@app.command()
def refresh(
    target: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="The folder that a web server serves.", show_default=False),
    ] = None,
    folder: FolderOption = DEFAULT_FOLDER,
    keys: KeysOption = None,
    now: NowOption = None,
) -> None:
    """Say that the list is still the present one: a new timestamp, for cron. It needs the key of timestamp alone.

    Example: dynpin recovery refresh /var/www/recovery
    """
    at = moment(now)
    try:
        repository = Repository(folder)
        repository.refresh(_signers(repository, keys, None, of=ONLINE), now=at)
        if target is not None:
            repository.publish(target)
        signed = repository.signed()
    except (DynpinError, OSError, ValueError) as error:
        fail(reason_of(error))
    say(f"the timestamp is good until {rfc3339(signed['timestamp'].expires.timestamp())}")
    problems = [each.problem for each in expiries(signed, at) if each.problem is not None]
    if problems:
        finding("\n        ".join(problems))


@app.command("rotate-keys")
def rotate_keys(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROLE]…", help="Whose keys: root, targets, snapshot, timestamp. Without any, all."),
    ] = None,
    folder: FolderOption = DEFAULT_FOLDER,
    threshold: ThresholdOption = 1,
    of: OfOption = 1,
    keys: KeysOption = None,
    passphrase_file: PassphraseFileOption = None,
    now: NowOption = None,
) -> None:
    """Replace keys, those that were stolen or lost first: a new root, which the old root's keys must sign.

    Clients go on with what they have noted: the header names version 1 for ever.

    Example: dynpin recovery rotate-keys timestamp
    """
    unknown = [part for part in parts or () if part not in ROLES]
    if unknown:
        fail(f"{unknown[0]} is not a role; there are {', '.join(ROLES)}")
    try:
        repository = Repository(folder)
        old = _signers(repository, keys, passphrase_file, of=OFFLINE)
        secret = passphrase(passphrase_file) if not parts or {*OFFLINE} & {*parts} else b""
        files = repository.propose_keys(parts or ROLES, threshold=threshold, of=of, passphrase=secret, now=moment(now))
        repository.add_signatures(old)
        waiting = repository.pending()
    except (DynpinError, OSError, ValueError) as error:
        fail(reason_of(error))
    for file in files:
        say(f"{file}{'  (encrypted)' if file.name.startswith(OFFLINE) else ''}")
    for each in waiting:
        if each.missing:
            say(f"version {each.version} of {each.role} needs {each.missing} more: dynpin recovery sign --key FILE")
    if not any(each.missing for each in waiting):
        say("\nNext: dynpin recovery publish FOLDER")


@app.command()
def status(folder: FolderOption = DEFAULT_FOLDER, now: NowOption = None, as_json: JsonOption = False) -> None:
    """Show what expires when, and what waits for signatures. Exit code 1 where something must be done."""
    at = moment(now)
    try:
        repository = Repository(folder)
        root, ends, waiting = repository.root().signed, expiries(repository.signed(), at), repository.pending()
        pins = repository.pins()
        name = repository.recovery("https://example.invalid/").root_text
    except (DynpinError, OSError, ValueError) as error:
        fail(reason_of(error))
    problems = [each.problem for each in ends if each.problem is not None]
    problems += [
        f"version {each.version} of {each.role} waits for {each.missing} signatures" for each in waiting if each.missing
    ]
    if pins is None:
        problems.append("there is no list yet: dynpin recovery sign dynpin.toml")
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
        print_json({"root": name, "hosts": hosts, "roles": rows, "problems": problems})
    else:
        _show(name, ends, root)
    if problems:
        finding(None if as_json else "\n        ".join(problems))


def _show(name: str, ends: list[Expiry], root: Root) -> None:
    from rich.table import Table  # noqa: PLC0415 - beside what is shown

    from dynpin.cli.tables import table_console  # noqa: PLC0415

    say(f"recovery-root {name}")
    table = Table(box=None, pad_edge=False)
    for column in ("role", "version", "keys", "expires"):
        table.add_column(column, overflow="fold")
    for each in ends:
        role = root.roles[each.role]
        needed = f"{role.threshold} of {len(role.keyids)}"
        table.add_row(each.role, str(each.version), needed, rfc3339(each.expires_at))
    table_console().print(table)


def _signers(
    repository: Repository, keys: list[Path] | None, passphrase_file: Path | None, *, of: tuple[str, ...]
) -> list[CryptoSigner]:
    """The keys that are named, or those of these roles in the folder of keys."""
    files = keys or sorted(file for role in of for file in repository.keys.glob(f"{role}-*.key.pem"))
    return read_signers(files, lambda: passphrase_of_keys(passphrase_file))
