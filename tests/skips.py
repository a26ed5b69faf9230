"""Skipped tests that need a program or a package: one line at the end of the run names what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

# "wget2 is not installed: apt-get install wget2", and what pytest.importorskip says.
_REASON = re.compile(
    r"(?P<names>.+) is not installed(?:: (?P<how>.+ install(?: --\w+)?) (?P<what>.+))?"
    r"|could not import '(?P<package>\w+).*",
    re.DOTALL,
)


def missing_line(reasons: Iterable[str]) -> str | None:
    """What the tests need that were skipped for these reasons, most needed first, and how to install it.

    None if nothing is missing. Reasons of another kind, such as "only root may mount", are left to ``pytest -rs``.
    """
    tests, needed = 0, Counter[str]()
    installs: dict[str, set[str]] = {}
    for reason in reasons:
        found = _REASON.fullmatch(reason.removeprefix("Skipped: "))
        if found is None:
            continue
        tests += 1
        names = (found["names"] or found["package"]).split(", ")
        needed.update(names)
        if found["package"]:
            installs.setdefault("pip install", set()).update(names)
        elif found["how"]:
            installs.setdefault(found["how"], set()).update(found["what"].split())
    if not tests:
        return None
    listed = ", ".join(
        f"{name} ({count})" for name, count in sorted(needed.items(), key=lambda each: (-each[1], each[0]))
    )
    commands = "; ".join(f"{how} {' '.join(sorted(what))}" for how, what in sorted(installs.items()))
    return f"{tests} {'test was' if tests == 1 else 'tests were'} skipped. Not installed: {listed}. {commands}".rstrip()
