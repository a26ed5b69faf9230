"""The teacher's kit in docs/teaching: its predictions are right, and its events exist.

Its console blocks are run by `tests/test_docs.py`, like those of every page.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from dynpin.lab.agents import AGENTS
from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import scenarios
from dynpin.lab.timeline import day

KIT = Path(__file__).parents[2] / "docs" / "teaching"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(KIT.glob("*.md"))}
LESSONS = {name: text for name, text in PAGES.items() if name.startswith("lesson-")}

_EXERCISE = re.compile(r"^### (\d+)\. .*?(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `([\w-]+)` \| (\w+) \| (day [^|]+) \| (\w+) at ([\w.]+) \| ([^|]+) \|$", re.MULTILINE)
_ROWS = [(int(found[1]), *row) for found in _EXERCISE.finditer(PAGES["exercises"]) for row in _ROW.findall(found[0])]


def _record(playings: list[Playing], story: str, agent: str) -> Playing:
    return next(each for each in playings if (each.scenario, each.agent) == (story, agent))


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: "-".join(map(str, row[:3])) + f"-{row[4]}")
def test_each_prediction_is_right(row: tuple[int, str, str, str, str, str, str], playings: list[Playing]) -> None:
    _, story, agent, when, who, host, outcomes = row
    playing = _record(playings, story, agent)
    if playing.timeline is None:
        pytest.skip(playing.missing)
    seen = [
        (visit.outcome or "").replace("-", " ")
        for visit in playing.timeline.visits
        if (day(visit.at), visit.actor, visit.host) == (when, who, host)
    ]
    assert seen == outcomes.split(", ")


def test_each_exercise_asks_for_a_prediction_and_folds_its_solution() -> None:
    exercises = {int(found[1]): found[0] for found in _EXERCISE.finditer(PAGES["exercises"])}
    assert list(exercises) == list(range(1, 13))
    for number, text in exercises.items():
        question, _, solution = text.partition("<details>\n<summary>Solution</summary>\n")
        assert "?" in question, number
        assert not _ROW.search(question), "the solution stands folded"
        assert solution.rstrip().endswith("</details>"), number
        stories = {story for story, *_ in _ROW.findall(solution)}
        assert len(stories) == 1, number
        assert f"`{stories.pop()}`" in question, number


@pytest.mark.parametrize("name", LESSONS)
def test_the_minutes_of_a_lesson_follow_each_other(name: str) -> None:
    spans = [(int(begin), int(end)) for begin, end in re.findall(r"^\| (\d+) to (\d+) \|", PAGES[name], re.MULTILINE)]
    assert spans[0][0] == 0
    assert spans[-1][1] == int(name.removeprefix("lesson-"))
    assert all(one[1] == other[0] for one, other in pairwise(spans))
    assert all(begin < end for begin, end in spans)


@pytest.mark.parametrize("name", LESSONS)
def test_each_moment_on_the_screen_is_there(name: str, playings: list[Playing]) -> None:
    moments = re.findall(r"`#(story=[^`]+)`", PAGES[name])
    assert moments
    for moment in moments:
        asked = {key: values[0] for key, values in parse_qs(moment, strict_parsing=True).items()}
        told = [_record(playings, asked["story"], asked[side]) for side in ("agent", "beside") if side in asked]
        events = [len(each.timeline.events) for each in told if each.timeline]
        assert len(events) == len(told), moment
        assert 1 <= int(asked["step"]) <= max(events), moment


@pytest.mark.parametrize("name", PAGES)
def test_a_command_is_named_only_if_it_is_run(name: str) -> None:
    """Each `dynpin …` in the text of a page is also in a console block of the kit, perhaps with further options."""
    run = set(re.findall(r"^\$ (dynpin .*)$", "\n".join(PAGES.values()), re.MULTILINE))
    text = re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)
    named = set(re.findall(r"`(dynpin [^`]+)`", text)) - {"dynpin lab run NAME"}
    assert [each for each in named if not any(f"{command} ".startswith(f"{each} ") for command in run)] == []


def test_each_story_and_agent_that_is_named_is_there() -> None:
    for name, text in PAGES.items():
        for story in re.findall(r"dynpin lab run ([\w-]+)", text):
            assert story in {*scenarios(), "NAME"}, name
        for agent in re.findall(r"--agent (\w+)", text):
            assert agent in AGENTS, name


def test_each_reference_is_listed_with_its_address_and_as_bibtex() -> None:
    sections = {
        re.sub(r"[^a-z0-9]+", "-", title.lower()): text
        for title, text in re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGES["references"], re.MULTILINE | re.DOTALL)
    }
    entries = dict(
        re.findall(r"^@\w+\{([\w-]+),\n(.*?)^\}", (KIT / "references.bib").read_text(), re.MULTILINE | re.DOTALL)
    )
    assert list(entries) == list(sections)
    for key, entry in entries.items():
        fields = dict(re.findall(r"^  (\w+) *= (.*?),?$", entry, re.MULTILINE))
        assert {"author", "title", "year"} <= set(fields), key
        title, year = (re.sub(r"[{}]", "", fields[name]) for name in ("title", "year"))
        assert title in " ".join(sections[key].split()), key
        assert year in sections[key], key
        addresses = re.findall(r"<(https://[^>]+)>", sections[key])
        assert addresses == ([fields["url"].strip("{}")] if "url" in fields else []), key
    cited = set(re.findall(r"references\.md#([\w-]+)", "\n".join(PAGES.values())))
    assert cited <= set(entries)


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| ([^|]+) \| [^|]+ \| (?:(?:§[\d.]+(?:, )?)+ )?\|$", PAGES["glossary"], re.MULTILINE)
    assert len(words) > 20
    assert words == sorted(words, key=str.lower)
