"""What one process writes is visible to all others at once. `make stress` runs this for longer."""

from __future__ import annotations

import signal

import pytest

from .killed_writers import VICTIMS, kill_a_writer
from .sharing import in_memory
from .written_and_read import write_and_tell

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an interval timer"),
    # In Python 3.13 a connection that an exception has orphaned warns when it is freed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*unclosed database"),
]


def test_each_commit_is_seen_by_all_before_the_next_one() -> None:
    with in_memory() as folder:
        figures = write_and_tell(folder / "pins.sqlite", 300)
    for process, of_process in figures.items():
        assert of_process["stops"], process
        assert of_process["openings"], process
        assert of_process["left_open"] == [], process


@pytest.mark.parametrize("does", list(VICTIMS))
def test_a_writer_that_is_killed_takes_nothing_acknowledged_along(does: str) -> None:
    with in_memory() as folder:
        assert kill_a_writer(folder / "pins.sqlite", does, 3)
