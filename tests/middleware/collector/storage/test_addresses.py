"""The address of a storage: no slip of the pen shows a password, or makes a file of an address."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from dynpin.middleware.collector.storage import migrate_storage, open_storage, shown

SECRET = "sEcReT"


@pytest.mark.parametrize(
    "address",
    [
        # What libpq reads as a part of the host, as a port, or as the name of the database.
        f"postgresql://u:p@{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:{SECRET}/x@127.0.0.1:1/db",
        f"postgresql://u:x/{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:{SECRET}/db",
        f"postgresql://u:{SECRET}\0x@127.0.0.1:1/db",
        f"postgresql://u:{SECRET}\udcffx@127.0.0.1:1/db",
        f"postgresql://u:{SECRET}%00x@127.0.0.1:1/db",
        # What is no address of ours, and no name of a file either.
        f"postgresql:/u:{SECRET}@127.0.0.1:1/db",
        f"PostgreSQL://u:{SECRET}@127.0.0.1:1/db",
        f" postgresql://u:{SECRET}@127.0.0.1:1/db",
        f"host=127.0.0.1 port=1 password={SECRET}",
        f"password = {SECRET} host=127.0.0.1",
    ],
)
def test_an_address_with_a_slip_is_refused_and_shows_no_password(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for attempt in (open_storage, migrate_storage):
        with pytest.raises(ValueError, match="postgresql://USER@HOST/DATABASE") as caught:
            attempt(address)
        assert SECRET not in str(caught.value)
    with contextlib.suppress(ValueError):  # whose message is that of the two before
        assert SECRET not in shown(address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://u:p%40%2Fx@a:1,b:2/db?application_name=a@b/c", "postgresql://u@a:1,b:2/db"),
        ("postgresql:///db?host=/run/postgresql&user=me%40example", "postgresql://me@example@/run/postgresql/db"),
        ("postgresql://u:a?b#c@[::1]:5432/db", "postgresql://u@::1:5432/db"),
        ("folder/reports=2026.sqlite", "folder/reports=2026.sqlite"),
    ],
)
def test_an_address_as_people_see_it(address: str, told: str) -> None:
    assert shown(address) == told
