"""Deleting on a full disk: what makes room must need none."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynpin.middleware.collector import Retention, open_storage
from dynpin.middleware.collector.intake import understood
from dynpin.middleware.collector.storage import Arrival, Filter
from tests.middleware.collector.conftest import NOW, report


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_old_reports_are_deleted_on_a_disk_that_something_else_has_filled(small_disk: Path) -> None:
    storage = open_storage(small_disk / "r.sqlite", clock=lambda: NOW + 100 * 86_400)
    body = json.dumps(report() | {"x": "x" * 5000})
    for start in range(0, 500, 50):
        told = [understood(report(hostname=f"h{start + number}.test"), "enforce") for number in range(50)]
        storage.add([Arrival(one.cause, one.flags, None, None, "t", "", "", NOW, body) for one in told], {})
    with storage.reading() as unit:
        unit.db.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").all()
    with contextlib.suppress(OSError), (small_disk / "other").open("wb", buffering=0) as other:
        while other.write(b"x" * 4096):
            pass
    assert os.statvfs(small_disk).f_bavail == 0
    assert storage.prune(Retention(days=90)).reports == 500
    assert storage.groups(Filter()).entries == []
    storage.close()
