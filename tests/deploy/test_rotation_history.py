"""The history of a site: what it says, and the file that keeps it, whatever happens to either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import PublicKeyPins
from dynpin.deploy import locks
from dynpin.deploy.rotation import (
    Deployed,
    Event,
    History,
    HistoryError,
    Listed,
    Planned,
    Published,
    held,
    status,
    unknown_steps,
)
from dynpin.deploy.rotation.file import HistoryFile
from dynpin.deploy.rotation.repair import in_order, salvage, with_unknown
from dynpin.middleware.policy.steps import Ramp, Step
from tests.deploy.test_rotation import CA, DAY, HOST, MONTH, NEW, NEXT, OLD, START, header, history, pinned

# Every kind of event, in an order that happens.
FULL = (
    pinned(OLD, NEW)
    .with_event(Planned(START + DAY, NEXT, (NEW,)))
    .with_event(Published(START + DAY, header(OLD, NEXT, NEW)))
    .with_event(Listed(START + DAY, (OLD, NEXT, NEW)))
    .with_event(Deployed(START + DAY + MONTH, (NEXT, CA)))
)


def test_a_history_survives_its_file() -> None:
    kept = pinned(OLD, NEW).with_event(Planned(START + 1, NEXT, (NEW,))).with_event(Published(START + 2, None))
    assert History.from_json(kept.to_json()) == kept


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2, "host": "a", "events": []}', '{"version": 1, "host": "a", "events": [{}]}',
     '{"version": 1, "host": "a", "events": [{"at": "2026-01-01T00:00:00", "event": "published", "header": null}]}',
     '{"version": 1, "host": "a", "events": [{"at": "2026-01-01T00:00:00Z", "event": "burnt"}]}'],
)  # fmt: skip
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a rotation history"):
        History.from_json(text)


# Damage that is still JSON: a value of another kind, and the words for it.
CHANGED: dict[str, tuple[str, str, str]] = {
    "the version": ('"version": 1', '"version": true', "version is damaged"),
    "the host": (f'"host": "{HOST}"', '"host": null', "host is damaged"),
    "the events": ('"events": [', '"events": {}, "before": [', "events is damaged"),
    "no chain": (f'"chain": [\n        "{OLD}"', '"chain": [], "before": [\n        "x"', "event 2: chain is empty"),
    "a chain": (f'"chain": [\n        "{OLD}"', '"chain": "", "before": [\n        "x"', "event 2: chain is damaged"),
    "a mode": ('"Public-Key-Pins"', '"Public-Key-Pins-Report"', "event 1: a header 'Public-Key-Pins-Report' is not"),
    "a header": ('"header": "pin', '"header": null, "before": "pin', "event 1: header is damaged"),
    "a time": ('"at": "2026', '"at": 2026, "before": "2026', "event 1: at is damaged"),
    "a day": ('"at": "2026-', '"at": "2026-1', "event 1: '2026-1"),
    "a year without dates after it": ('"at": "2026-', '"at": "9999-', "event 1: '9999-"),
    "a year before all": ('"at": "2026-', '"at": "0001-', "event 1: '0001-"),
    "an event's word": ('"event": "deployed"', '"event": "deployed", "by": "me"', "event 2: by is not known"),
    "a word beside the events": ('"version": 1', '"version": 1, "also": 1', "also is not known"),
    "a merge of two files": ('"events": [', '"events": [], "events": [', "events is there twice"),
    "a merge of two events": ('"chain": [', '"chain": [], "chain": [', "chain is there twice"),
}


@pytest.mark.parametrize(("old", "new", "said"), CHANGED.values(), ids=CHANGED)
def test_a_value_of_another_kind_is_damage(old: str, new: str, said: str) -> None:
    text = FULL.to_json()
    assert old in text
    with pytest.raises(HistoryError) as refused:
        History.from_json(text.replace(old, new, 1))
    assert str(refused.value).startswith(f"this is not a rotation history: {said}")


def test_a_history_that_is_nested_is_told_without_words_of_python() -> None:
    with pytest.raises(HistoryError, match="not a rotation history: it is nested too deeply"):
        History.from_json("[" * 100_000)


def test_a_history_is_not_rewritten() -> None:
    with pytest.raises(ValueError, match="2026-11-24"):
        pinned(OLD, NEW).with_event(Deployed(START - 61, (NEW,)))


def test_what_a_ramp_sent_stands_in_the_place_of_what_was_recorded() -> None:
    kept = pinned(OLD, NEW).with_event(Published(START + 5 * DAY, header(OLD, NEXT)))
    hour = 3600
    sent = [(START - DAY, None), (START + DAY, hour), (START + 2 * DAY, 2 * hour), (START + 6 * DAY, hour)]
    climbed = kept.on_ramp(sent)
    published = [(event.at, event.header) for event in climbed.events if isinstance(event, Published)]
    assert published == [
        (START, PublicKeyPins((OLD, NEW), report_only=True)),
        (START + DAY, header(OLD, NEW, max_age=hour)),
        (START + 2 * DAY, header(OLD, NEW, max_age=2 * hour)),
        (START + 5 * DAY, header(OLD, NEXT, max_age=2 * hour)),
        (START + 6 * DAY, header(OLD, NEXT, max_age=hour)),
    ]
    assert climbed.chain == kept.chain
    # It may be written down and read with the ramp again, as the commands do.
    assert climbed.on_ramp(sent) == climbed
    # Two hours were sent until just now, though it is one hour again.
    assert max(each.until for each in held(climbed, START + 6 * DAY + 1)) == START + 6 * DAY + 2 * hour
    # What unpins is on no ramp.
    unpinned = history(Published(START, header(OLD, max_age=0)))
    assert unpinned.on_ramp(sent) == unpinned


RAMP = Ramp(
    (Step(None, int(7 * DAY)), Step(3600, int(DAY))), int(MONTH), "https://c.test", "t", "https://c.test/r/t", Path("s")
)
BEGINNING = Published(START, PublicKeyPins((OLD, NEW), report_only=True))
UNKNOWN: dict[str, tuple[History, list[tuple[float, int | None]], list[tuple[float, int | None]]]] = {
    "the server started after the record": (history(BEGINNING), [(START + DAY, None)], []),
    "the file was lost": (
        history(BEGINNING),
        [(START + 50 * DAY, None)],
        [(START, None), (START + 7 * DAY, 3600), (START + 8 * DAY, int(MONTH))],
    ),
    "there is no file": (
        history(BEGINNING),
        [],
        [(START, None), (START + 7 * DAY, 3600), (START + 8 * DAY, int(MONTH))],
    ),
    "the height was recorded since": (
        history(BEGINNING, Published(START + 7.5 * DAY, header(OLD, NEW, max_age=3600))),
        [(START + 8 * DAY, None)],
        [(START, None), (START + 7 * DAY, 3600), (START + 7.5 * DAY, 3600)],
    ),
    "the file goes back to the record": (history(BEGINNING), [(START - 1, None), (START + 90 * DAY, 3600)], []),
    "what unpins is on no ramp": (history(Published(START, header(OLD, max_age=0))), [], []),
    "what is assumed is not on it": (history(Published(START, header(OLD, max_age=60), is_assumed=True)), [], []),
}


@pytest.mark.parametrize(("kept", "sent", "expected"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_ramp_without_its_file_may_have_moved_up(
    kept: History, sent: list[tuple[float, int | None]], expected: list[tuple[float, int | None]]
) -> None:
    assert unknown_steps(kept, RAMP, sent, START + 60 * DAY) == expected


# --- the same thing twice -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", FULL.events[2:], ids=lambda event: type(event).__name__)
def test_what_holds_already_is_not_appended(event: Event) -> None:
    assert FULL.with_event(replace(event, at=START + 90 * DAY)) is FULL
    # After something else of its kind it is news again.
    between = FULL.with_event(Published(START + 91 * DAY, None)).with_event(Deployed(START + 91 * DAY, (NEW,)))
    between = between.with_event(Planned(START + 91 * DAY, OLD, (NEW,))).with_event(Listed(START + 91 * DAY, (NEW,)))
    assert len(between.with_event(replace(event, at=START + 92 * DAY)).events) == len(between.events) + 1


def test_a_time_keeps_the_part_of_its_second() -> None:
    """Cut off, a header would seem to have ended before its last response."""
    kept = pinned(OLD, NEW).with_event(Published(START + DAY + 0.75, header(OLD, NEXT)))
    assert History.from_json(kept.to_json()) == kept


# --- the file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> HistoryFile:
    made = HistoryFile(tmp_path / "history.json")
    made.change(lambda before: FULL if before is None else before)
    return made


# Each appends 20 events of its own; without the lock one reads what the other is about to replace.
_WRITER = """
import sys
from pathlib import Path
from dynpin import Pin
from dynpin.deploy.rotation import Deployed
from dynpin.deploy.rotation.file import HistoryFile

for number in range(20):
    pin = Pin(bytes([int(sys.argv[2]), number]) * 16)
    HistoryFile(Path(sys.argv[1])).change(lambda before: before.with_event(Deployed(before.events[-1].at + 1, (pin,))))
"""


def test_several_commands_at_once_lose_nothing(kept: HistoryFile) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(kept.path), str(number)], stderr=subprocess.PIPE)
        for number in range(3)
    ]
    for writer in writers:
        _, said = writer.communicate(timeout=300)
        assert writer.returncode == 0, said.decode()
    assert len(kept.read().events) == len(FULL.events) + 60
    assert [each.name for each in kept.path.parent.iterdir()] == ["history.json"]


@pytest.fixture(params=["fcntl", "a file"])
def lock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to hold others off: Windows has no fcntl."""
    if request.param == "a file":
        monkeypatch.setattr(locks, "fcntl", None)
    return str(request.param)


def test_a_command_waits_for_another_and_not_for_ever(
    kept: HistoryFile, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    inside, leave = threading.Event(), threading.Event()

    def slowly(before: History | None) -> History:
        inside.set()
        assert leave.wait(60)
        assert before is not None
        return before.with_event(Published(START + 90 * DAY, None))

    other = threading.Thread(target=kept.change, args=(slowly,))
    other.start()
    assert inside.wait(60)
    with pytest.raises(HistoryError, match="another command is changing") as refused:
        kept.change(lambda before: before or FULL)
    assert ("remove that file" in str(refused.value)) == (lock == "a file")
    leave.set()
    other.join()
    assert kept.change(lambda before: before or FULL).header is None
    assert [each.name for each in kept.path.parent.iterdir()] == ["history.json"]


def test_a_change_that_fails_leaves_the_file_and_no_lock(kept: HistoryFile, lock: str) -> None:
    text = kept.path.read_bytes()

    def fail(_: History | None) -> History:
        raise ValueError(lock)

    with pytest.raises(ValueError, match=lock):
        kept.change(fail)
    assert kept.path.read_bytes() == text
    assert kept.change(lambda before: before or FULL) == FULL


def test_a_folder_that_cannot_be_locked(kept: HistoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have no flock."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    assert locks.fcntl is not None
    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    assert kept.change(lambda before: (before or FULL).with_event(Published(START + 90 * DAY, None))).header is None
    assert [each.name for each in kept.path.parent.iterdir()] == ["history.json"]


def test_a_link_to_itself_is_told(kept: HistoryFile) -> None:
    kept.path.unlink(missing_ok=True)
    kept.path.symlink_to(kept.path.name)
    for do in (kept.read, lambda: kept.change(lambda _: pinned(OLD)), lambda: kept.repair(lambda _: pinned(OLD))):
        with pytest.raises(OSError, match="symbolic links"):
            do()


def test_a_pipe_in_its_place_is_told_and_repaired(kept: HistoryFile) -> None:
    kept.path.unlink(missing_ok=True)
    os.mkfifo(kept.path)
    with pytest.raises(OSError, match="nothing writes to this pipe"):
        kept.read()
    kept.repair(lambda _: pinned(OLD))
    assert kept.read() == pinned(OLD)


def test_a_symbolic_link_stays_one(kept: HistoryFile, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    link = tmp_path / "site" / "history.json"
    link.symlink_to(kept.path)
    HistoryFile(link).change(lambda before: (before or FULL).with_event(Published(START + 90 * DAY, None)))
    assert link.is_symlink()
    assert kept.read().header is None


# --- a damaged file -----------------------------------------------------------------------------------------------

TEXT = FULL.to_json()
# What happened to the file: the text, how many events are saved, and how many are seen not to be.
DAMAGED: dict[str, tuple[str, int, int]] = {
    "cut in an event": (TEXT[: TEXT.index('"planned"') + 12], 2, 1),
    "cut between two events": (TEXT[: TEXT.index("}", TEXT.index('"planned"')) + 1], 3, 0),
    "a pin that is none": (TEXT.replace(f'"target": "{NEXT}"', f'"target": "{str(NEXT)[1:]}"'), 5, 1),
    "a time that is none": (TEXT.replace("2026-11-25", "2026-11-55", 1), 5, 1),
    "a brace lost": (TEXT.replace("}", "", 1), 5, 1),
    "an event of another form": (TEXT.replace('"events": [', '"events": [3,'), 6, 1),
    "a list that is none": (TEXT.replace('"events": [', '"events": {'), 6, 0),
    "merged with another one": (TEXT.replace('"events": [', '"events": [], "events": ['), 6, 0),
    "emptied": ("", 0, 0),
    "overwritten": ("\0" * 4096, 0, 0),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_told_and_what_can_be_read_is_saved(damage: str, kept: HistoryFile) -> None:
    text, saved_events, unread = DAMAGED[damage]
    kept.path.write_text(text)
    with pytest.raises(HistoryError, match="dynpin rotate repair --history") as refused:
        kept.read()
    assert str(kept.path) in str(refused.value)
    saved = salvage(text.encode())
    assert (len(saved.events), len(saved.unread), saved.is_complete) == (saved_events, unread, False)
    assert set(saved.events) <= set(FULL.events)
    assert saved.host == (HOST if '"host"' in text else None)


def test_only_the_version_is_wrong() -> None:
    saved = salvage(TEXT.replace('"version": 1', '"version": 7').encode())
    assert saved.is_complete
    assert in_order(saved, HOST, START + 90 * DAY) == FULL


@given(st.binary(max_size=80), st.integers(0, len(TEXT)), st.integers(0, 80))
def test_no_damage_raises(noise: bytes, at: int, length: int) -> None:
    data = TEXT.encode()
    saved = salvage(data[:at] + noise + data[at + length :])
    in_order(saved, HOST, START + 90 * DAY)


def test_an_event_in_the_future_happened_by_now_and_none_before_the_one_before_it() -> None:
    now = START + 2 * DAY
    events = (FULL.events[0], replace(FULL.events[1], at=START - DAY), replace(FULL.events[3], at=now + 900 * DAY))
    text = History(HOST, events).to_json()
    with pytest.raises(HistoryError, match="event 2"):
        History.from_json(text)
    assert [each.at for each in in_order(salvage(text.encode()), HOST, now).events] == [START, START, now]


def test_what_is_unknown_counts_as_held_for_the_longest_max_age() -> None:
    now = START + 10 * DAY
    # The file lost the header that came second, and with it the new key's first day.
    known = pinned(OLD, NEW)
    whole = with_unknown(known, header(OLD, NEXT), (OLD, CA), now, longest=int(2 * MONTH))
    assert whole.header == header(OLD, NEXT)
    assumed = [policy for policy in held(whole, now) if policy.is_assumed]
    assert [(policy.header.pins, policy.until) for policy in assumed] == [((OLD,), now + 2 * MONTH)]
    # What was known to be sent was sent until now, and is held as ever.
    assert held(whole, now)[0].until == now + MONTH
    assert not status(whole, now).locked_out
    # A rotation waits for it, though the present header has the new key.
    planned = whole.with_event(Planned(now, NEXT, (NEW,))).with_event(Published(now, header(OLD, NEXT, NEW)))
    step = status(planned, now).step
    assert step is not None
    assert (step.name, step.at) == ("deploy", now + 2 * MONTH)
    assert History.from_json(planned.to_json()) == planned


def test_what_is_unknown_may_be_held_for_as_long_as_anything_that_was_sent() -> None:
    known = pinned(OLD, NEW, max_age=12 * MONTH)
    whole = with_unknown(known, header(CA, NEXT), (OLD, CA), START, longest=int(2 * MONTH))
    [assumed] = [policy for policy in held(whole, START) if policy.is_assumed]
    # The key of the chain that the site pins is the one that was in the header before.
    assert (assumed.header.pins, assumed.until) == ((CA,), START + 12 * MONTH)


def test_a_ramp_says_nothing_of_what_is_unknown() -> None:
    whole = with_unknown(pinned(OLD, NEW), header(OLD, NEXT), (OLD, CA), START + DAY, longest=int(2 * MONTH))
    climbed = whole.on_ramp([(START, 3600), (START + DAY, 7200), (START + 2 * DAY, 86_400)])
    [assumed] = [policy for policy in held(climbed, START + 2 * DAY) if policy.is_assumed]
    assert assumed.until == START + DAY + 2 * MONTH
    assert climbed.header == header(OLD, NEXT, max_age=DAY)


def test_a_repair_keeps_the_damaged_file_beside_the_new_one(kept: HistoryFile) -> None:
    for number, name in enumerate(("history.json.damaged", "history.json.damaged-2"), 1):
        kept.path.write_text(TEXT[: -10 * number])
        after, aside = kept.repair(lambda saved: in_order(saved, HOST, START + 90 * DAY))
        assert aside == kept.path.with_name(name)
        assert aside.read_text() == TEXT[: -10 * number]
        assert kept.read() == after
    assert kept.repair(lambda saved: in_order(saved, HOST, START + 90 * DAY)) == (after, None)
    assert json.loads(kept.path.read_text())["version"] == 1
