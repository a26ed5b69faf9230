"""The table and the pictures of docs/how-to/lab.md are up to date."""

from __future__ import annotations

import re

import pytest

from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import scenarios
from tests.lab import docs_pictures

DOCS = docs_pictures.PICTURES.parent


def test_the_table_of_the_docs_is_up_to_date(playings: list[Playing]) -> None:
    text = (DOCS / "how-to" / "lab.md").read_text()
    agents = ["dynpin", "chromium", "firefox", "wget2"]
    assert f"| | Story | {' | '.join(agents)} |" in text
    rows = re.findall(r"^\| (\d+) \| `(.+)` \| (.*) \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert [(int(number), name) for number, name, *_ in rows] == [
        (each.number, each.name) for each in scenarios().values()
    ]
    found = {(each.scenario, each.agent): each for each in playings}
    for _, name, *cells in rows:
        for agent, cell in zip(agents, cells, strict=True):
            each = found.get((name, agent))
            if each is not None and each.missing:
                continue
            outcome = "" if each is None or each.outcome is None else each.outcome.replace("-", " ")
            differs = outcome not in ("", (found[name, "dynpin"].outcome or "").replace("-", " "))
            assert cell == (f"**{outcome}**" if differs else outcome), f"{name} with {agent}"
    # The options of a user, and the second ending, below their story.
    told: list[tuple[str, str, list[str]]] = []
    story = ""
    for line in text.splitlines():
        if row := re.match(r"\| \d+ \| `(.+?)` \|", line):
            story = row[1]
        elif row := re.match(r"\| \| … (.+?) \| (.*) \|$", line):
            told.append((story, row[1].strip("`"), row[2].split(" | ")))
    expected = {
        (name, option): [found[name, agent].options.get(option) if (name, agent) in found else None for agent in agents]
        for name, agent in found
        for option in found[name, agent].options
    }
    assert {(name, option) for name, option, _ in told} == set(expected)
    for name, option, cells in told:
        for agent, cell, of in zip(agents, cells, expected[name, option], strict=True):
            each = found.get((name, agent))
            if each is None or not each.missing:
                assert cell.strip() == (of or "").replace("-", " "), f"{name}, {option}, with {agent}"


@pytest.mark.parametrize("name", docs_pictures.NAMES)
def test_the_pictures_of_the_docs_are_up_to_date(name: str) -> None:
    text = (DOCS / "how-to" / "lab.md").read_text()
    for file, drawn in docs_pictures.pictures(name):
        assert text.count(f"_static/{file.name}") == 1
        # The length of a request depends on the version of the HTTP library.
        committed, now = (re.sub(rb"[0-9]+ bytes", b"N bytes", each) for each in (file.read_bytes(), drawn))
        assert committed == now, f"{file.name} is not up to date: python -m tests.lab.docs_pictures"
