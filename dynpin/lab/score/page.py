"""A score as one HTML page without scripts, which loads nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from dynpin import __version__
from dynpin.lab.pages import page_templates
from dynpin.lab.picture.paper import DARK, LIGHT
from dynpin.lab.score.result import Score

__all__ = ["score_page"]


def score_page(score: Score) -> str:
    """The page about a run. All text from an agent is escaped."""
    return (
        page_templates(Path(__file__).parent)
        .get_template("score.html")
        .render(score=score, light=LIGHT, dark=DARK, version=__version__)
    )
