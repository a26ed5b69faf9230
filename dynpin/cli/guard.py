"""`dynpin guard NEWCHAIN`: for the deploy hooks of ACME clients."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, finding, reason_of
from dynpin.cli.options import (
    DEFAULT_HISTORY,
    DEFAULT_INVENTORY,
    CapOption,
    HistoryOption,
    InventoryOption,
    JsonOption,
    NowOption,
    ReloadOption,
    cap_of,
    moment,
)
from dynpin.cli.printing import print_json, say
from dynpin.cli.rotate_site import as_sent, earlier_history, kept_at, read_history
from dynpin.cli.signed_list import ListOption, read_list
from dynpin.cli.site import inventory_of
from dynpin.deploy.acme import deploy_hook
from dynpin.deploy.candidate import Candidate, belongs_elsewhere, examine, made_now
from dynpin.deploy.guard import Reason, Verdict
from dynpin.deploy.guard_list import held_against_list
from dynpin.deploy.install import CHAIN, InstallError, needs_reload
from dynpin.deploy.install import install as install_pair
from dynpin.deploy.install import reload as run_reload
from dynpin.deploy.rotation import Held, History, Published
from dynpin.deploy.rotation.sights import of_another_site
from dynpin.errors import InvalidHeader, PolicyError
from dynpin.header import PublicKeyPins
from dynpin.middleware.policy import Built, Inventory, certain_pins, path_of, read_file, read_inventory, recall
from dynpin.pins import Pin
from dynpin.report import rfc3339

__all__ = ["guard"]

_FOLDER, _RELOAD = Path("/etc/ssl/pinned"), "systemctl reload nginx"
_SHARED_KEY = (
    "By its names it is another site's, but its key is this site's, so it is not skipped. If two sites share the key, "
    "let only the renewals of this site call this hook (certbot renew --cert-name NAME --deploy-hook FILE), or "
    "give the other site a key of its own"
)


def guard(
    chain: Annotated[
        Path | None,
        typer.Argument(metavar="NEWCHAIN", help="The chain to deploy: PEM, leaf first.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            help="Its private key. The default is privkey.pem, if it is beside fullchain.pem.",
            show_default=False,
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", help="Instead of a history: a header that clients may hold. Repeatable."),
    ] = None,
    inventory: InventoryOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    install: Annotated[
        Path | None,
        typer.Option(
            "--install",
            metavar="FOLDER",
            help="If all is well, put chain and key into this folder, where the server reads them.",
            show_default=False,
        ),
    ] = None,
    reload: ReloadOption = None,
    skip: Annotated[
        bool, typer.Option("--skip-other-sites", help="For a certificate of other hosts, do nothing and exit with 0.")
    ] = False,
    hook: Annotated[
        str | None,
        typer.Option(
            "--hook",
            metavar="certbot|lego|acme.sh",
            help="Print a deploy hook for this program, which does all this.",
            show_default=False,
        ),
    ] = None,
    signed_list: ListOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell whether deploying NEWCHAIN would lock clients out: exit code 1 if so, with what to do instead.

    It checks the names, dates, order, issuer and key of the certificate, and then the pins that clients may hold.

    Example: dynpin guard renewed/fullchain.pem --install /etc/ssl/pinned --reload "systemctl reload nginx"
    """
    if hook is not None:
        _print_hook(hook, inventory, history, install or _FOLDER, reload or _RELOAD, as_json=as_json)
        return
    if chain is None:
        fail("name the chain that is to be deployed, or --hook for a script that does")
    if install is None and (reload is not None or skip):
        fail("--reload and --skip-other-sites need --install")
    at = moment(now)
    site = inventory_of(inventory, is_named_otherwise=bool(header), beside=history)
    new = Candidate.read(chain, key)
    if install is not None and new.key is None:
        fail(f"--install puts certificate and key together into {install}: name the key with --key FILE")
    # Checked first: a certificate of another site has nothing to do with this site's faults.
    others = _other_site(new, *_own(site, history, header)) if skip else None
    if others is not None:
        _say_skipped(others, as_json=as_json)
        return
    built = None if site is None else made_now(site, at)
    elsewhere = None if built is None or install is None else belongs_elsewhere(new, built.chains, install / CHAIN)
    if skip and elsewhere is not None:
        _say_skipped(elsewhere, as_json=as_json)
        return
    sent = _sent_now(header, built, at) if header else _remembered(_sent_until_now(built, history, chain), built, at)
    verdict = examine(
        new,
        sent.history,
        at,
        hosts=sent.hosts,
        built=built,
        makes=sent.makes,
        is_recorded=sent.is_recorded,
        max_max_age=cap_of(cap),
    )
    verdict = _held_against_list(verdict, new, built, signed_list, at)
    if skip and new.is_of_another_site(sent.hosts, ()):
        verdict = replace(verdict, advice=(_SHARED_KEY, *verdict.advice))
    verdict = _replaces_no_other(verdict, elsewhere)
    ignored = () if site is None or install is None else _not_followed(site, install)
    verdict = replace(verdict, unseen=(*sent.unseen, *verdict.unseen), warnings=(*verdict.warnings, *ignored))
    done = _install(new, install, reload) if verdict.ok else _Done()
    if as_json:
        print_json(_as_json(verdict, new, sent, done))
    else:
        _show(verdict, sent)
        for line in done.lines:
            say(line)
    if done.failure is not None or not verdict.ok:
        finding(done.failure)


@dataclass(frozen=True, slots=True)
class _Sent:
    """What clients were sent, if known; `makes` is the inventory's header, if it is not in the history."""

    history: History
    hosts: tuple[str, ...]
    makes: PublicKeyPins | None
    unseen: tuple[str, ...]
    is_recorded: bool = True


def _held_against_list(verdict: Verdict, new: Candidate, built: Built | None, place: str | None, now: float) -> Verdict:
    """The verdict, with the faults by the signed list, if the site has one."""
    recovery = None if built is None else built.inventory.recovery
    if built is None or recovery is None:
        if place is not None:
            fail("--list is for a site that has one: name its dynpin.toml, which has [recovery], with --inventory")
        return verdict
    if place is None:
        unseen = "whether the signed list accepts this chain: name the published folder, or uri, with --list"
        return replace(verdict, unseen=(*verdict.unseen, unseen))
    listed = read_list(recovery, place, built.inventory, now)
    pins = certain_pins(new.chain, built.inventory.roots)
    return held_against_list(verdict, listed, built.inventory.hosts, built.header, pins)


def _replaces_no_other(verdict: Verdict, elsewhere: str | None) -> Verdict:
    """The verdict, with a fault if the chain belongs in another folder."""
    if elsewhere is None:
        return verdict
    lost = f"{elsewhere}, which the server would lose. Name the folder of the chain that it replaces"
    reasons = (Reason("replaces-another-chain", lost), *verdict.reasons)
    return replace(verdict, reasons=reasons, ready_at=None)


def _other_site(new: Candidate, hosts: Sequence[str], keys: Collection[Pin]) -> str | None:
    """Why the certificate is another site's; None if it is this one's."""
    if not hosts:
        fail("--skip-other-sites cannot tell which site this is: name its dynpin.toml with --inventory")
    if not new.is_of_another_site(hosts, keys):
        return None
    names = ", ".join(new.chain.names or ()) or "no host"
    return f"{new.path} is for {names}, and this site is {', '.join(hosts)}"


def _say_skipped(why: str, *, as_json: bool) -> None:
    say(f"skipped: {why}", err=True)
    if as_json:
        print_json({"ok": True, "skipped": True})


def _own(site: Inventory | None, history: Path, header: Sequence[str] | None) -> tuple[tuple[str, ...], frozenset[Pin]]:
    """The hosts of the site, if they are known, and the pins of its keys that can be read."""
    if site is not None:
        try:
            return site.hosts, frozenset(site.own_keys())
        except PolicyError:
            return site.hosts, frozenset()  # a missing file of this site is no fault of another site's certificate
    if header:
        return (), frozenset()
    kept = read_history(history)
    return (kept.host,), frozenset((*kept.chain[:1], *(kept.header.pins if kept.header else ())))


def _sent_now(headers: Sequence[str], built: Built | None, now: float) -> _Sent:
    """What clients hold by `--header`, and by an inventory as well."""
    sent = [] if built is None else [built.header]
    for value in headers:
        try:
            sent.append(PublicKeyPins.parse(value))
        except InvalidHeader as error:
            fail(f"--header {value!r}: {error}; dynpin lint says more")
    hosts, label = ((), "this host") if built is None else (built.inventory.hosts, built.inventory.label)
    history = History(label, tuple(Published(now, header) for header in sent))
    return _Sent(history, hosts, None, ("what else clients may hold: --header was believed, and no history was read",))


def _sent_until_now(built: Built | None, file: Path, chain: Path) -> _Sent:
    """What the history has, and what the inventory makes."""
    if built is None:
        history = read_history(file)
        alone = "whether the site sends what the history says: name its dynpin.toml with --inventory"
        return _Sent(history, (history.host,), None, (alone,))
    inventory = built.inventory
    kept = kept_at(file, inventory)
    is_kept = kept.exists()
    # The file from before the nodes shared their state, if nobody has recorded that yet.
    earlier = None if is_kept or inventory.state is None else earlier_history(file, inventory)
    if is_kept or earlier is not None:
        history = read_history(file, inventory.path) if earlier is None else as_sent(earlier, inventory)
        other = of_another_site(history, kept if is_kept else file, inventory)
        if other is not None:
            fail(f"{other}, with --history and --inventory")
        # A history without a header does not say what clients hold.
        is_recorded = any(isinstance(event, Published) for event in history.events)
        unseen = () if is_recorded else (f"what was sent so far: {kept} has no header (dynpin rotate record)",)
        if not is_kept:
            unseen = (f"what was sent since {file}, which no history continues yet (dynpin rotate record)",)
        return _Sent(history, inventory.hosts, built.header, unseen, is_recorded=is_recorded)
    if inventory.state is not None:
        before = "what was sent before the nodes shared their state: no history is kept (dynpin rotate record)"
        history = as_sent(History(inventory.label), inventory)
        return _Sent(history, inventory.hosts, built.header, (before,), is_recorded=bool(history.sent_by_nodes))
    # The key that was pinned until now is in no file any more.
    if any(each is not None and each.exists() and each.samefile(chain) for each in map(path_of, inventory.keys)):
        fail(
            f"{chain} is the deployed chain of {inventory.path} itself, so the pins before it are unknown: check the "
            "new chain before it is copied there, or keep a history (dynpin rotate record)"
        )
    history = History(inventory.label)
    ramp = inventory.kept_ramp()
    climbed = () if ramp is None else ramp.sent()
    if climbed:
        # What the ramp has sent with these pins, even if it sends less now.
        history = History(history.host, (Published(climbed[0][0], built.header),)).on_ramp(climbed)
    before = f"what was sent before dynpin.toml made its present header: there is no {file} (dynpin rotate record)"
    return _Sent(history, inventory.hosts, built.header, (before,), is_recorded=False)


def _remembered(sent: _Sent, built: Built | None, now: float) -> _Sent:
    """What clients may hold, with the header that the server sent last, if it keeps that in a file (`remember`)."""
    # What unpins ends that, and leaves the file as it is. Report-only ends nothing: clients hold what was sent before.
    file = None if built is None or built.header.max_age == 0 else built.inventory.remember
    last = None if file is None else recall(file)
    if built is None or last is None:
        return sent
    if set(last.pins) != set(built.header.pins):
        say(
            f"dynpin: {file} has the last header that the server sent for clients to keep. dynpin.toml makes other "
            "pins; both count. If the server sent it longer ago than its max-age, remove the file",
            err=True,
        )
    by_nodes = (*sent.history.sent_by_nodes, Held(last, now, None, now))
    return replace(sent, history=replace(sent.history, sent_by_nodes=by_nodes))


@dataclass(frozen=True, slots=True)
class _Done:
    """The result of an installation: lines to print, and the folder; `failure` ends the command with exit code 1."""

    lines: tuple[str, ...] = ()
    folder: Path | None = None
    is_new: bool = False
    is_reloaded: bool = False
    failure: str | None = None


def _install(new: Candidate, folder: Path | None, command: str | None) -> _Done:
    if folder is None or new.key is None:
        return _Done()
    try:
        is_new = install_pair(new.data, read_file(new.key), folder, reloads=command is not None)
    except (InstallError, OSError) as error:
        return _Done(failure=reason_of(error))
    said = f"installed in {folder}" if is_new else f"{folder} has this certificate and key already"
    if command is None or not (is_new or needs_reload(folder)):
        return _Done((said,), folder, is_new)
    failed = run_reload(command, folder)
    if failed is None:
        return _Done((said, f"reloaded: {command}"), folder, is_new, is_reloaded=True)
    failure = (
        f"{command}: {failed}. The new certificate and key stay in {folder}, since clients accept them; the server "
        "shows the old ones until it loads them. Run the command by hand, or this one again: it only repeats the "
        "reload"
    )
    return _Done((said,), folder, is_new, failure=failure)


def _show(verdict: Verdict, sent: _Sent) -> None:
    if verdict.ok:
        # Without the hosts only the pins were checked, and a chain is more than its pins.
        say(f"{'fine' if sent.hosts else 'the pins are fine'}: {verdict.held}.")
    for reason in verdict.reasons:
        say(f"STOP: {reason.message}.")
    for line in verdict.advice:
        say(f"  {line}")
    for line in verdict.warnings:
        say(f"  Warning: {line}.")
    for line in verdict.unseen:
        say(f"  Not seen: {line}.")


def _as_json(verdict: Verdict, new: Candidate, sent: _Sent, done: _Done) -> dict[str, object]:
    reasons = [{"code": reason.code, "message": reason.message} for reason in verdict.reasons]
    if done.failure is not None:
        code = "not-installed" if done.folder is None else "not-reloaded"
        reasons.append({"code": code, "message": done.failure})
    return {
        "ok": not reasons,
        "skipped": False,
        "host": sent.history.host,
        "key": str(new.chain.pins[0]),
        "reasons": reasons,
        "held": verdict.held or None,
        "locked_out": [{"header": str(policy.header), "until": rfc3339(policy.until)} for policy in verdict.locked_out],
        "ready_at": None if verdict.ready_at is None else rfc3339(verdict.ready_at),
        "advice": list(verdict.advice),
        "warnings": list(verdict.warnings),
        "not_seen": list(verdict.unseen),
        "folder": None if done.folder is None else str(done.folder),
        "installed": done.is_new,
        "reloaded": done.is_reloaded,
    }


def _print_hook(
    client: str, inventory: Path | None, history: Path, folder: Path, reload: str, *, as_json: bool
) -> None:
    if as_json:
        fail("--hook prints a script: leave --json out")
    if inventory is None and DEFAULT_INVENTORY.is_file():
        inventory = DEFAULT_INVENTORY
    if inventory is None and not history.exists():
        fail(
            f"there is neither {DEFAULT_INVENTORY} nor {history} here, so the hook could not tell what clients accept: "
            "name the site's dynpin.toml with --inventory"
        )
    # An ACME client runs it in a folder of its own.
    script = deploy_hook(
        client,
        history=history.absolute(),
        inventory=None if inventory is None else inventory.absolute(),
        folder=folder.absolute(),
        reload=reload,
    )
    for line in () if inventory is None else _not_followed(read_inventory(inventory), folder):
        say(f"dynpin: {line}", err=True)
    typer.echo(script, nl=False)


def _not_followed(site: Inventory, folder: Path) -> tuple[str, ...]:
    """A warning if the header would not follow the installed chain."""
    target = folder.absolute() / CHAIN
    named = [path.absolute() for path in map(path_of, site.keys) if path is not None]
    if any(os.path.normpath(path) == os.path.normpath(target) for path in named):
        return ()
    if target.exists() and any(path.exists() and path.samefile(target) for path in named):
        return ()
    return (f"keys in {site.path} does not name {target}, so the header does not follow what is installed there",)
