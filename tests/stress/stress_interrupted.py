"""The store, with an exception at every instruction of every call in turn."""

from __future__ import annotations

import pytest

from ..clientstore.test_interrupted import CALLS, Both, both, interrupt

__all__ = ["both"]

# In Python 3.13 a connection that an exception has orphaned warns when it is freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*unclosed database")


@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("opened", [False, True], ids=["closed", "open"])
def test_an_exception_at_each_instruction_in_turn(both: Both, call: str, opened: bool) -> None:
    interrupt(both, call, opened, every=1)
