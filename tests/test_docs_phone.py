"""The docs on a phone: no table and no code is cut, and no page scrolls sideways."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.middleware.collector.chromium import CHROMIUM, chromium

DOCS = Path(__file__).parents[1] / "docs"
# Those with the longest code and the widest tables.
PAGES = (
    "explanation/performance",
    "how-to/lab",
    "how-to/ramp",
    "reference/clients",
    "reference/collector",
    "reference/store",
)
CONFIGURATION = f"""
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
html_theme = "furo"
html_static_path = [{str(DOCS / "_static")!r}]
html_css_files = ["dynpin.css"]
"""
WIDER_THAN_ITS_BOX = """
    [...document.querySelectorAll("article .table-wrapper, article pre, article img")]
        .filter(e => e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth)
        .map(e => e.outerHTML.slice(0, 200))
"""

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("furo") is None, reason="furo is missing: pip install --group docs"),
    pytest.mark.xdist_group("chromium"),
]


def test_nothing_is_cut_on_a_phone(tmp_path: Path) -> None:
    source, built = tmp_path / "docs", tmp_path / "html"
    source.mkdir()
    (source / "conf.py").write_text(CONFIGURATION)
    (source / "index.md").write_text("# Docs\n\n```{toctree}\n" + "\n".join(PAGES) + "\n```\n")
    for page in PAGES:
        (source / page).parent.mkdir(exist_ok=True)
        shutil.copy(DOCS / f"{page}.md", source / f"{page}.md")
    # Its references lead to pages that are not built here.
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-Q", str(source), str(built)]
    subprocess.run(command, check=True, timeout=300)
    with chromium(tmp_path / "profile") as browser:
        browser.look(width=390)
        for page in PAGES:
            browser.visit((built / f"{page}.html").as_uri())
            assert browser.run("document.documentElement.scrollWidth") <= 390, page
            assert browser.run(WIDER_THAN_ITS_BOX) == [], page
