"""Output for notebooks: the page of the docs is run cell by cell, with IPython's output for each."""

from __future__ import annotations

import atexit
import csv
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dynpin.deploy.lint import Scan
from dynpin.deploy.tables import csv_table, html_table
from dynpin.lab.playing import Playing, play_one
from dynpin.lab.scenarios import scenarios
from dynpin.lab.score import Score, described, rules, score

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "notebook.md"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def playing() -> Playing:
    return play_one(scenarios()["hotspot"], "dynpin")


@pytest.fixture(scope="module")
def scored() -> Score:
    chosen = [rule for rule in rules() if rule.id in ("first-use", "directive-repeated")]
    return score("naive", described("naive"), chosen, processes=1)


def scan() -> Scan:
    found = Scan()
    found.add_line(b'{"host": "bank.test", "status": 200, "headers": {}}')
    return found


class _Texts(HTMLParser):
    """The texts of each cell, and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# -- shown -------------------------------------------------------------------------------------------------------------


def test_a_playing_is_shown_as_its_picture_with_its_events(playing: Playing) -> None:
    shown = _Texts(playing._repr_html_())
    assert "The fake Wi-Fi hotspot, with dynpin" in shown.text
    assert {"svg", "details", "table"} <= set(shown.tags)
    assert playing.timeline is not None
    assert playing.timeline._repr_html_() in playing._repr_html_()
    assert all(playing.timeline.sentence(event) in shown.text for event in playing.timeline.events)
    picture = playing._repr_svg_()
    assert picture is not None
    assert ET.fromstring(picture).tag == f"{SVG}svg"
    assert picture.encode() == playing.picture()
    assert playing.picture("pdf").startswith(b"%PDF-")
    assert playing.picture("pdf") == playing.picture("pdf"), "the same story gives the same file"


def test_a_playing_that_is_missing_says_why() -> None:
    absent = Playing("hotspot", "wget2", None, "wget2 is <not> installed")
    assert "Not played here: wget2 is &lt;not&gt; installed." in absent._repr_html_()
    assert absent._repr_svg_() is None
    with pytest.raises(ValueError, match="hotspot could not be played with wget2"):
        absent.picture()


def test_a_score_and_a_scan_are_shown_as_tables(scored: Score) -> None:
    shown = _Texts(scored._repr_html_())
    assert "1 held, 1 broken, 0 not testable" in shown.text
    assert shown.tags.count("tr") == 3
    figures = _Texts(scan()._repr_html_())
    assert "1 line, 1 response" in figures.text
    assert "100.00%" in figures.text


def test_a_study_is_shown_as_its_curves_and_totals() -> None:
    pytest.importorskip("numpy")
    from dynpin.lab.simulation.comparison import Comparison
    from dynpin.lab.simulation.study import study_of

    told = {
        "clients": 300,
        "days": 30,
        "policy": [{"max_age": "20 days"}, {"pin": "none"}],
        "event": [{"kind": "loss", "day": 10, "keys": "all"}],
    }
    compared = Comparison.of(study_of(told, Path()), processes=1)
    shown = _Texts(compared._repr_html_())
    assert {"svg", "table"} <= set(shown.tags)
    assert "300 clients (website), 30 days" in shown.text
    assert shown.tags.count("tr") == 3
    assert "?xml" not in compared._repr_html_()
    curves = lines(compared.to_csv())
    most = max(float(each["locked_out"]) for each in curves if each["policy"] == compared.outcomes[0].policy.name)
    assert most == pytest.approx(max(compared.outcomes[0].locked_out), abs=0.05)
    assert len({each["day"] for each in curves}) >= 30, "a line for each day"


# -- exported ----------------------------------------------------------------------------------------------------------


def test_csv_has_the_events_the_verdicts_and_the_figures(playing: Playing, scored: Score) -> None:
    assert playing.timeline is not None
    events = lines(playing.timeline.to_csv())
    assert [each["outcome"] for each in events] == [event.outcome or "" for event in playing.timeline.events]
    assert [float(each["at"]) for each in events] == [event.at for event in playing.timeline.events]
    assert [each["outcome"] for each in lines(scored.to_csv())] == ["held", "broken"]
    assert {"table": "classes", "name": "absent", "responses": "1", "share": "1.0"} in lines(scan().to_csv())


def test_dictionaries_name_what_they_hold(playing: Playing, scored: Score) -> None:
    assert playing.to_dict()["outcome"] == "protected"
    assert scored.to_dict()["counts"] == {"held": 1, "broken": 1, "not_testable": 0}
    assert scan().to_dict()["lines"] == 1


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_is_a_formula_or_a_tag(text: str) -> None:
    (row,) = lines(csv_table(["name"], [[f"{text}"]]))
    assert row["name"] == f"'{text}"
    assert "<script" not in html_table("<script>", ["<script>"], [[f"<script>{text}", None]])
    assert lines(csv_table(["count", "text"], [[-1, 'a,b\n"c"']])) == [{"count": "-1", "text": 'a,b\n"c"'}]


# -- the page of the docs, as a notebook -------------------------------------------------------------------------------


def test_each_cell_of_the_page_is_shown_by_ipython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = pytest.importorskip("IPython.core.interactiveshell")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # IPython replaces the main module, from which no other process can then be started.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    shell = ipython.InteractiveShell()
    shown: list[dict[str, Any]] = []
    cells = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    try:
        for cell in cells:
            done = shell.run_cell(cell, store_history=False)
            done.raise_error()
            if done.result is not None:
                data, _ = shell.display_formatter.format(done.result)
                shown.append(data)
    finally:
        shell.history_manager.end_session()
        shell.atexit_operations()
        atexit.unregister(shell.atexit_operations)
    assert len(shown) == 5
    assert all("text/html" in data for data in shown)
    assert "image/svg+xml" in shown[0]
    assert "image/svg+xml" in shown[-1]
