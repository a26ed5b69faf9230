"""What a client would refuse in the folder that is served, and what is told of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dynpin.deploy.recovery import SignedFiles, differing
from tests.recovery.conftest import HOST, PINS
from tests.recovery.operator import Operator


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_each_fault_of_a_role_is_told(tmp_path: Path, role: str) -> None:
    operator = Operator(tmp_path)
    for _ in range(2):
        operator.sign({HOST: PINS})
    files = SignedFiles(operator.www)
    first, second, third = (operator.www / f"{version}.{role}.json" for version in (1, 2, 3))
    assert files.faults() == ()
    shutil.copy(second, third)
    assert files.faults() == (f"clients are led to {second}, although there is version 3",)
    third.unlink()
    signed = json.loads(second.read_bytes())
    second.write_text(json.dumps({**signed, "signatures": []}))
    assert files.faults() == (f"{second} is signed by too few of the keys that the root names",)
    first.rename(second)
    assert f"{second} is version 1" in files.faults()
    second.unlink()
    assert str(second) in files.faults()[-1]


def test_a_file_of_any_size_may_be_in_the_place_of_a_served_one(tmp_path: Path) -> None:
    """Somebody who can write there can make it larger than the memory of this machine."""
    operator = Operator(tmp_path)
    operator.sign({HOST: PINS})
    for file in operator.www.rglob("*.json"):
        before = file.read_bytes()
        with file.open("r+b") as opened:
            opened.truncate(1 << 40)  # sparse: it needs no room
        name = file.relative_to(operator.www).as_posix()
        assert differing(operator.repository, operator.www) == [name]
        file.write_bytes(before)
