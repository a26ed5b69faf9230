"""Check many sites at once: each ``dynpin.toml`` below a folder, and its live site."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dynpin.errors import DynpinError, PolicyError
from dynpin.middleware.policy import Inventory, read_inventory

from .agreement import agreement
from .check import Checked, check_site
from .lint import Circumstances
from .lint.holdings import holdings_of
from .parallel import as_they_end
from .reach import LookOptions, site_reached
from .rotation import History, unknown_steps
from .rotation.shared import kept_history
from .rotation.sights import of_another_site

__all__ = ["Outcome", "check_all", "inventories_below"]

INVENTORY, HISTORY = "dynpin.toml", "dynpin-history.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one site.

    Attributes:
        path: its ``dynpin.toml``, or the folder that could not be read.
        host: its first host that is not a wildcard, if that is known.
        checked: the result of the check; None if it failed.
        failure: why it failed.
    """

    path: Path
    host: str | None = None
    checked: Checked | None = None
    failure: str | None = None


def inventories_below(folder: Path) -> tuple[tuple[Path, ...], tuple[Outcome, ...]]:
    """Every ``dynpin.toml`` in a folder and below it, and an outcome for each folder that cannot be read.

    A link to a folder counts if the file is right in that folder, as in ``sites-enabled``; it is not followed further.
    A folder counts once, however many links lead to it.
    """
    found: list[Path] = []
    unread: list[Outcome] = []
    links: list[Path] = []
    seen: set[Path] = set()

    def note(error: OSError) -> None:
        unread.append(Outcome(Path(os.fsdecode(error.filename)), failure=error.strerror or str(error)))

    for inside, folders, files in os.walk(folder, onerror=note):
        here = Path(inside)
        seen.add(here.resolve())
        links += [here / name for name in folders if (here / name).is_symlink()]
        if INVENTORY in (*files, *folders):  # a folder of that name cannot be read, which is a finding
            found.append(here / INVENTORY)
    for link in sorted(links):
        if (real := link.resolve()) in seen:
            continue
        seen.add(real)
        try:
            (link / INVENTORY).lstat()
            found.append(link / INVENTORY)
        except FileNotFoundError:
            pass
        except OSError as error:
            note(error)
    return tuple(sorted(found)), tuple(unread)


def check_all(paths: Sequence[Path], options: LookOptions, at_once: int, now: float) -> Iterator[Outcome]:
    """Check the site of each ``dynpin.toml``. Results come as they are ready. A history beside the file is used.

    A failure of one site does not stop the others.

    Args:
        paths: the files.
        options: how to look.
        at_once: how many sites are checked at the same time.
        now: the time for checking certificates, in seconds since the epoch, UTC.
    """
    for _, outcome in as_they_end([partial(_check, path, options, now) for path in paths], at_once):
        yield outcome


def _check(path: Path, options: LookOptions, now: float) -> Outcome:
    host = None
    try:
        holdings = holdings_of(read_inventory(path), now)
        host = holdings.host
        if host is None:
            return Outcome(
                path,
                failure=f"hosts of {path} has no name to look at, only wildcards or IP addresses: add one",
            )
        site = site_reached(host, 443, "/", holdings.inventory, options)
        history = _history(path.with_name(HISTORY), holdings.inventory, now)
        checked = check_site(
            site,
            holdings,
            known=Circumstances(),
            history=history,
            now=now,
            say=lambda step: None,
            signed_list=options.signed_list,
        )
        checked = replace(checked, remarks=(*checked.remarks, *agreement(holdings.inventory)[1]))
    except DynpinError as error:
        return Outcome(path, host, failure=str(error))
    except OSError as error:
        return Outcome(path, host, failure=f"{error.filename or path}: {error.strerror or error}")
    if not checked.look.responses:
        return Outcome(path, host, failure=checked.silence)
    return Outcome(path, host, checked)


def _history(path: Path, inventory: Inventory, now: float) -> History | None:
    """The history of a site, with the steps of its ramp; None if there is none, or if the collector is away."""
    try:
        history = kept_history(path, inventory).read()
    except FileNotFoundError:
        return None
    except PolicyError:
        return None  # the collector is away: a remark says so, and the live site is checked without the history
    other = of_another_site(history, path, inventory)
    if other is not None:
        raise PolicyError(other)
    ramp, kept = inventory.ramp, inventory.kept_ramp()
    if ramp is None or kept is None:
        return history
    sent = kept.sent()
    return history.on_ramp([*unknown_steps(history, ramp, sent, now), *sent])
