"""Make the pictures of docs/how-to/lab.md: python -m tests.lab.docs_pictures"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dynpin.lab.picture import draw
from dynpin.lab.scenarios import play, scenarios

PICTURES = Path(__file__).parents[2] / "docs" / "_static"
NAMES = ("hotspot", "first-visit", "backup-used", "all-keys-lost", "smashing-magazine", "ransom-pkp")
# The widths in pixels with readable letters: of a page of the site, and of a phone.
PAGES = {"": 640, "-phone": 360}


def pictures(name: str) -> Iterator[tuple[Path, bytes]]:
    """The files of a scenario, played once: for wide pages and phones, light and dark."""
    timeline = play(scenarios()[name], "dynpin")
    for kind, page in PAGES.items():
        for scheme in ("light", "dark"):
            drawn = draw(timeline, scenarios()[name].title, "svg", dark=scheme == "dark", page=page)
            yield PICTURES / f"lab-{name}{kind}-{scheme}.svg", drawn


if __name__ == "__main__":
    for each in NAMES:
        for file, drawn in pictures(each):
            file.write_bytes(drawn)
            print(file)
