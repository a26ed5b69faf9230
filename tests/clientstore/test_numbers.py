"""The numbers, words and names that a store takes: each is checked where it comes in, and named if it is wrong."""

from __future__ import annotations

import itertools
import pickle
from copy import copy, deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import KnownPinnedHost, Pin, StoreError
from dynpin.clientstore import PinStore, ReportQueue
from dynpin.report import FIRST_SECOND, LAST_SECOND

PINS = Pin(b"a" * 32), Pin(b"b" * 32)
HEADER = "; ".join([*(f'pin-sha256="{pin}"' for pin in PINS), "max-age=5000"])
NO_TIMES: list[Any] = [
    *(float("inf"), float("-inf"), float("nan"), Decimal("nan"), Decimal("snan"), 2**63, 10**400, 1e308),
    *("100", b"1", 1j, [], timedelta(days=1), datetime(2030, 1, 1, tzinfo=UTC), LAST_SECOND + 1, FIRST_SECOND - 1),
]
NO_LIMITS: list[Any] = [-1, 0.5, True, 2**64, None, float("inf"), float("nan"), "100", 1j, Decimal("nan"), timedelta(1)]


@given(st.one_of(st.floats(), st.integers(), st.decimals(), st.fractions(), st.sampled_from([-0.0, True])))
def test_a_time_is_read_back_as_it_was_written_or_is_refused(moment: Any) -> None:
    with PinStore.private(clock=lambda: 0.0) as store:
        try:
            entry = store.pin("bank.test", PINS, expires_at=moment)
        except ValueError:
            assert store.entry("bank.test") is None
        else:
            assert type(entry.expires_at) is float
            assert store.entry("bank.test") == entry
            assert entry.expires_at == float(moment)


@pytest.mark.parametrize("moment", NO_TIMES, ids=lambda moment: repr(moment)[:20])
def test_what_is_no_time(moment: Any) -> None:
    entry = KnownPinnedHost("bank.test", PINS, False, None, 0.0, None, "static")
    with PinStore.private() as store:
        with pytest.raises(ValueError, match=r"expires_at of bank.test is .*, not a time within the years 1 to 9999"):
            store.pin("bank.test", PINS, expires_at=moment)
        for name, way in itertools.product(
            ("noted_at", "expires_at"), (store.merge, lambda of: store.preload(of, "app"))
        ):
            with pytest.raises(ValueError, match=r"a time of bank.test is .*, not a time"):
                way([replace(entry, **{name: moment})])
        assert store.hosts(include_expired=True) == []


@pytest.mark.parametrize("moment", [*NO_TIMES, None], ids=lambda moment: repr(moment)[:20])
def test_a_clock_that_gives_no_time_refuses_connections_and_blames_the_clock(moment: Any) -> None:
    times: list[Any] = [0.0]
    with PinStore.private(clock=lambda: times[0]) as store:
        store.pin("bank.test", PINS)
        times[0] = moment
        for act in (lambda: store.validate("bank.test", []), lambda: store.note("bank.test", HEADER, PINS[:1])):
            with pytest.raises(StoreError, match=r"the time by the store's clock is .*, not a time"):
                act()


@pytest.mark.parametrize("fault", [RuntimeError("no device"), OSError(5, "no device"), KeyError("no device")], ids=repr)
def test_a_clock_that_fails_is_an_error_of_the_store(fault: Exception) -> None:
    faults: list[Exception] = []

    def clock() -> float:
        for each in faults:
            raise each
        return 0.0

    with PinStore.private(clock=clock) as store:
        store.pin("bank.test", PINS)
        faults.append(fault)
        for act in (lambda: store.validate("bank.test", []), lambda: store.note("bank.test", HEADER, PINS[:1])):
            with pytest.raises(StoreError, match=rf"the store's clock failed with {type(fault).__name__}: .*no device"):
                act()


@pytest.mark.parametrize("moment", [-0.0, 0, True, Decimal("1.5"), Fraction(1, 3)], ids=repr)
def test_any_number_within_the_calendar_is_a_time(moment: Any) -> None:
    with PinStore.private(clock=lambda: moment) as store:
        assert store.note("bank.test", HEADER, PINS[:1]).outcome == "noted"
        known = store.known_host("bank.test")
        assert known is not None
        assert known.expires_at == float(moment) + 5000


@pytest.mark.parametrize("name", ["max_max_age", "max_hosts", "max_hosts_per_domain"])
@pytest.mark.parametrize("limit", NO_LIMITS, ids=repr)
def test_a_limit_is_a_whole_number(name: str, limit: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {name: limit}
    with pytest.raises(ValueError, match=rf"^{name} is .*, not a whole number from [01] to \d+$"):
        PinStore(tmp_path / "pins", **options)
    assert not (tmp_path / "pins").exists()


def test_a_limit_may_be_a_float_without_a_fraction() -> None:
    with PinStore(":memory:", max_max_age=timedelta(seconds=7).total_seconds()) as store:  # type: ignore[arg-type] # as people write it
        assert (
            store.note("bank.test", HEADER, PINS[:1]).reason
            == "bank.test is pinned to 2 keys for 7 seconds, capped from 5000"
        )


@pytest.mark.parametrize("word", ["REFUSE", "refused", None, True], ids=repr)
def test_a_misspelt_word_for_clock_jumps_does_not_mean_warn(word: Any) -> None:
    with pytest.raises(ValueError, match='on_clock_jump is "warn" or "refuse", not '):
        PinStore(":memory:", on_clock_jump=word)


def test_own_domains_are_several() -> None:
    with pytest.raises(TypeError, match=r"own_domains=\['corp.test'\]"):
        PinStore(":memory:", own_domains="corp.test")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"pins": [str(PINS[0])]}, r"not a Pin: make one with Pin\.from_base64"),
    ({"pins": PINS, "certificates": b"a" * 32}, "32 bytes of its SHA-256"),
    ({"pins": PINS, "certificates": ["a" * 32]}, "32 bytes of its SHA-256"),
    ({"pins": PINS, "include_subdomains": "no"}, "include_subdomains of bank.test is True or False, not 'no'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[f"{list(options)[-1]}" for options, _ in WRONG])
def test_a_static_pin_of_the_wrong_type_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with PinStore.private() as store:
        with pytest.raises(ValueError, match=message):
            store.pin("bank.test", **options)
        assert len(store) == 0


PATHS: dict[str, Any] = {
    "a zero byte": "pins\0",
    "half a surrogate pair": "pins\ud800",
    "too long": "x" * 300,
    "too long with -wal": "x" * 253,
    "below a file": "file/pins",
    "a loop of links": "loop",
}


@pytest.mark.parametrize("name", PATHS.values(), ids=PATHS)
def test_a_path_that_cannot_be_a_file_is_an_error_of_the_store(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StoreError, match=r"the pin store .*(cannot be|not a file)"):
        PinStore(f"{tmp_path}/{name}")


@pytest.mark.parametrize("partition", [5, b"x", True])
def test_a_partition_is_a_text(partition: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"partition must be a text.*, not"):
        PinStore(tmp_path / "pins", partition=partition)


def test_a_path_of_bytes_and_a_partition_of_any_text(tmp_path: Path) -> None:
    with PinStore(bytes(tmp_path / "pins"), partition="\ud800") as store:  # type: ignore[arg-type] # os.fspath gives both
        assert Path(store.path).parent == tmp_path


@pytest.mark.parametrize("copied", [pickle.dumps, copy, deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_a_store_is_not_pickled_or_copied_but_opened_again(copied: Any, tmp_path: Path) -> None:
    with (
        PinStore(tmp_path / "pins") as store,
        pytest.raises(TypeError, match=r"a PinStore cannot be pickled or copied: open PinStore\('/.*/pins'\)"),
    ):
        copied(store)


OF_A_QUEUE: list[tuple[str, Any]] = [
    *(("mode", word) for word in ("Off", "same_domain", None, True)),
    *(("timeout", seconds) for seconds in (0, -1, float("nan"), float("inf"), 2**63, "5", None)),
    *(("max_per_hour", limit) for limit in NO_LIMITS),
]


@pytest.mark.parametrize(("name", "value"), OF_A_QUEUE, ids=repr)
def test_a_queue_of_reports_takes_no_word_and_no_number_that_it_does_not_know(name: str, value: Any) -> None:
    options: dict[str, Any] = {name: value}
    with PinStore.private() as store, pytest.raises(ValueError, match=f"^{name} is "):
        ReportQueue(store, background=False, **options)
