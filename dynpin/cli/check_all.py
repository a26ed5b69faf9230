"""`dynpin check --all FOLDER`: one line for each site that has a `dynpin.toml` below a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dynpin.cli.check_output import checked_as_json, has_finding
from dynpin.cli.errors import fail, finding
from dynpin.cli.lint import Threshold
from dynpin.cli.options import moment
from dynpin.cli.printing import print_json, say
from dynpin.cli.progress import counting_bar
from dynpin.counts import counted
from dynpin.deploy.many import Outcome, check_all, inventories_below
from dynpin.deploy.reach import LookOptions

__all__ = ["check_folder"]


def check_folder(
    folder: Path, options: LookOptions, *, at_once: int, as_json: bool, fail_on: Threshold, now: str | None
) -> None:
    """Check every site below a folder; exit code 1 if one has a finding, 2 if there is no site."""
    at = moment(now)
    paths, unread = inventories_below(folder)
    if not paths and not unread:
        fail(f"there is no dynpin.toml below {folder}: name the folder that has them; dynpin init makes one")
    if any(each.path == folder for each in unread):
        fail(f"{folder}: {unread[0].failure}; name the folder that has the sites")
    outcomes = sorted(
        [*unread, *_with_bar(check_all(paths, options, at_once, at), len(paths))], key=lambda each: each.path
    )
    bad = [each for each in outcomes if _is_bad(each, fail_on)]
    if as_json:
        print_json([_as_json(each, fail_on) for each in outcomes])
    else:
        for each in outcomes:
            say(_line(each, folder, fail_on))
        say(f"{counted(len(outcomes), 'site')}, {len(bad)} with a finding.")
    if bad:
        finding()


def _with_bar(outcomes: Iterable[Outcome], count: int) -> Iterator[Outcome]:
    """The outcomes, with a bar on stderr if that is a terminal."""
    with counting_bar(count, "sites") as advance:
        for outcome in outcomes:
            advance()
            yield outcome


def _is_bad(outcome: Outcome, fail_on: Threshold) -> bool:
    return outcome.checked is None or has_finding(outcome.checked, fail_on)


def _as_json(outcome: Outcome, fail_on: Threshold) -> dict[str, object]:
    return {
        "inventory": str(outcome.path),
        "host": outcome.host,
        "ok": not _is_bad(outcome, fail_on),
        "failure": outcome.failure,
        **({} if outcome.checked is None else checked_as_json(outcome.checked)),
    }


def _line(outcome: Outcome, folder: Path, fail_on: Threshold) -> str:
    verdict = "FINDING" if _is_bad(outcome, fail_on) else "fine"
    name = outcome.path.relative_to(folder)
    begin = f"{verdict:<8}{outcome.host or '-':<32} {name}"
    if outcome.checked is None:
        return f"{begin}  {'; '.join((outcome.failure or '').splitlines())}"
    faults = list(dict.fromkeys(found.fault for _, found in outcome.checked.results))
    more = [] if not outcome.checked.remarks else [outcome.checked.remarks[0]]
    return "  ".join([begin, *([", ".join(faults)] if faults else []), *more])
