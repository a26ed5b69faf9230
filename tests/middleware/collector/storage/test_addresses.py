"""The address of a storage: no slip of the pen shows a password, or makes a file of an address."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from dynpin.errors import StoreError
from dynpin.middleware.collector.storage import migrate_storage, open_storage, shown
from tests.postgres import ROLE, Cluster

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
        # What is not an address of ours, and no name of a file either.
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
    "parameters",
    [
        f"sslmode={SECRET}",
        f"connect_timeout={SECRET}",
        f"target_session_attrs={SECRET}",
        f"channel_binding={SECRET}",
        f"require_auth={SECRET}",
        f"load_balance_hosts={SECRET}",
        f"service={SECRET}",
        f"sslmode=require&sslcert=/{SECRET}",
        f"sslmode=verify-full&sslrootcert=/{SECRET}",
        f"passfile=/{SECRET}",
        f"password={SECRET}",
        "password=s%45cReT",
        f"sslpassword={SECRET}",
        f"options=-c%20{SECRET}%3D1",
        f"options=-c%20search_path%3D{SECRET}",
        f"application_name={SECRET}",
        f"{SECRET}=1",
        f"port={SECRET}",
        f"sslmode=require&{SECRET}",
        f"sslmode={SECRET}%zz",
    ],
)
def test_no_parameter_of_an_address_is_shown(
    cluster: Cluster, parameters: str, caplog: pytest.LogCaptureFixture
) -> None:
    # A server that is not there, and one that refuses the user: what libpq and the server say quotes the address.
    for where in ("u@127.0.0.1:1", f"u@127.0.0.1:{cluster.port}", f"{ROLE}:wrong{SECRET}@127.0.0.1:{cluster.port}"):
        address = f"postgresql://{where}/db?{parameters}"
        for attempt in (open_and_use, migrate_storage):
            with pytest.raises((ValueError, StoreError)) as caught:
                attempt(address)
            assert SECRET not in str(caught.value)
            assert SECRET not in caplog.text
        assert SECRET not in shown(address)


def open_and_use(address: str) -> None:
    """A server that is away is told at the first use."""
    with contextlib.closing(open_storage(address)) as storage:
        storage.fact("anything")


def test_what_the_server_says_of_an_option_is_shown_without_its_value(cluster: Cluster) -> None:
    with cluster.database() as address, pytest.raises(StoreError, match=r"cannot be used: .*configuration") as caught:
        migrate_storage(f"{address}?options=-c%20{SECRET}%3D1")
    assert SECRET not in str(caught.value)


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
