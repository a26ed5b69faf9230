"""Whose signed list may change a host's pins, and when a header is believed about it in what it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import InvalidHeader, KnownPinnedHost, Pin, PublicKeyPins
from dynpin.clientstore import PinStore
from dynpin.deploy.lint import lint
from dynpin.noting import note
from dynpin.recovery import ADOPTION, NotedRecovery, Recovery

DAY = 86_400.0
NOW = 1_800_000_000.0
LEAF, ISSUER, BACKUP, STOLEN = (Pin(bytes([number]) * 32) for number in range(1, 5))
CHAIN = (LEAF, ISSUER)
OWNER = Recovery(b"o" * 32, "https://recovery.example/bank")
THIEF = Recovery(b"t" * 32, "https://thief.example/")
MOVED = replace(OWNER, uri="https://elsewhere.example/")
PINS = (LEAF, BACKUP)
TEXT = f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=3; '


def test_a_header_gains_at_most_200_bytes() -> None:
    """With a URI of 100 characters, and so with any that is shorter."""
    plain = PublicKeyPins(PINS, 2_592_000)
    named = replace(plain, recovery=Recovery(b"o" * 32, f"https://recovery.example/{'a' * 75}"))
    assert len(str(named)) - len(str(plain)) <= 200


def visit(
    known: KnownPinnedHost | None,
    recovery: Recovery | None,
    now: float,
    *,
    max_age: int = 10 * 86_400,
    former: KnownPinnedHost | None = None,
    host: str = "bank.test",
) -> KnownPinnedHost:
    """The entry after a response of the site; before it there was `known`, or `former` once its pins had gone."""
    former = former or (known if known is not None and known.host == host else None)
    alive = None if known is None or known.is_released(now) else known
    noting = note(host, alive, PublicKeyPins(PINS, max_age, recovery=recovery), CHAIN, now, former=former)
    entry = noting.known_host or noting.remains
    assert entry is not None, noting
    return entry


def standing(entry: KnownPinnedHost) -> Recovery | None:
    return None if entry.recovery is None else entry.recovery.standing


# -- the header --------------------------------------------------------------------------------------------------------


def test_both_directives_are_read_and_written() -> None:
    header = PublicKeyPins(PINS, 3, recovery=OWNER)
    assert f'; recovery-root="{Pin(OWNER.root)}"; recovery-uri="{OWNER.uri}"' in str(header)
    assert PublicKeyPins.parse(str(header)) == header
    assert len(str(header)) - len(str(replace(header, recovery=None))) <= 200


ROOT = f'recovery-root="{OWNER.root_text}"'
PLACE = 'recovery-uri="https://r.example/"'


def test_a_recovery_shows_its_root_as_a_header_has_it() -> None:
    assert eval(repr(OWNER)) == OWNER
    assert OWNER.root_text in repr(NotedRecovery(OWNER))


@pytest.mark.parametrize(
    ("directives", "code"),
    [
        (ROOT, "recovery-alone"),
        (PLACE, "recovery-alone"),
        ("recovery-uri", "recovery-alone"),
        (f"recovery-root={OWNER.root_text[:-1]}; {PLACE}", "recovery-root-invalid"),
        (f'recovery-root="{OWNER.root_text[:-1]}"; {PLACE}', "recovery-root-invalid"),
        (f'recovery-root="{OWNER.root_text}A"; {PLACE}', "recovery-root-invalid"),
        (f'recovery-root=""; {PLACE}', "recovery-root-invalid"),
        (f"recovery-root; {PLACE}", "recovery-root-invalid"),
        (f'{ROOT}; recovery-uri="/list"', "recovery-uri-invalid"),
        (f'{ROOT}; recovery-uri="ftp://r.example/"', "recovery-uri-invalid"),
        (f'{ROOT}; recovery-uri="https://me:pw@r.example/"', "recovery-uri-invalid"),
        (f'{ROOT}; recovery-uri="https://r.example/?a=1"', "recovery-uri-invalid"),
        (f'{ROOT}; recovery-uri="https://r.example/#a"', "recovery-uri-invalid"),
        (f'{ROOT}; recovery-uri="https://r.example/a b"', "recovery-uri-invalid"),
        (f"{ROOT}; recovery-uri", "recovery-uri-invalid"),
        (f"{ROOT}; recovery-uri=list", "recovery-uri-invalid"),
    ],
)
def test_what_is_malformed_never_spoils_the_pins(
    directives: str, code: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header = PublicKeyPins.parse(TEXT + directives)
    assert (header.pins, header.max_age, header.recovery) == (PINS, 3, None)
    assert header.recovery_error is not None
    assert header.recovery_error.code == code
    assert header == PublicKeyPins.parse(TEXT)

    (found,) = [each for each in lint(TEXT + directives) if each.fault.startswith("recovery")]
    assert (found.fault, found.severity) == (code, "warning")
    assert found.span is not None
    assert (TEXT + directives)[slice(*found.span)].startswith("recovery-")

    with PinStore(tmp_path / "pins.sqlite", clock=lambda: NOW) as store:
        for _ in range(2):
            store.note("bank.test", TEXT + directives, CHAIN)
        noted = store.known_host("bank.test")
        assert noted is not None
        assert (noted.pins, noted.recovery) == (PINS, None)
    assert [record.message for record in caplog.records] == [
        f"bank.test is pinned without recovery: {header.recovery_error.message}"
    ]


def test_a_sound_pair_is_no_finding() -> None:
    assert not [each for each in lint(f"{TEXT}{ROOT}; {PLACE}") if "recovery" in each.fault]
    assert PublicKeyPins.parse(f"{TEXT}{ROOT}; {PLACE}").recovery_error is None


def test_a_directive_stands_once_here_as_everywhere() -> None:
    with pytest.raises(InvalidHeader, match="recovery-uri is there twice"):
        PublicKeyPins.parse(f'{TEXT}recovery-uri="https://a.example/"; recovery-uri="https://b.example/"')


@pytest.mark.parametrize(
    ("root", "uri", "code"),
    [(b"short", "https://r.example/", "recovery-root-invalid"), (b"r" * 32, "r.example", "recovery-uri-invalid")],
)
def test_what_could_not_stand_in_a_header_is_refused(root: bytes, uri: str, code: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        Recovery(root, uri)
    assert caught.value.code == code


# -- noting ------------------------------------------------------------------------------------------------------------


def test_the_first_visit_notes_the_root_with_the_pins() -> None:
    entry = visit(None, OWNER, NOW)
    assert entry.recovery == NotedRecovery(OWNER)
    assert entry.root_ends_at == entry.expires_at == NOW + 10 * DAY


def test_a_visit_that_repeats_it_moves_nothing_but_the_times() -> None:
    first = visit(None, OWNER, NOW)
    assert visit(first, OWNER, NOW + DAY).recovery == first.recovery


@pytest.mark.parametrize("named", [None, THIEF], ids=["none", "another"])
def test_no_header_changes_a_living_root(named: Recovery | None) -> None:
    entry = visit(None, OWNER, NOW)
    for day in range(1, 10):
        entry = visit(entry, named, NOW + day * DAY)
        assert standing(entry) == OWNER
        assert entry.root_ends_at == NOW + 10 * DAY, "it lives as long as the last header that named it said"
    # A week of the other one does not count while this one lives.
    entry = visit(entry, THIEF, NOW + 11 * DAY)
    assert standing(entry) is None
    entry = visit(entry, THIEF, NOW + 18 * DAY)
    assert standing(entry) == THIEF


@pytest.mark.parametrize("max_age", [0, 1])
@pytest.mark.parametrize("root", [OWNER, None], ids=["with a root", "without"])
def test_a_short_life_is_no_way_around_a_root_or_the_seven_days(root: Recovery | None, max_age: int) -> None:
    entry = visit(None, root, NOW)
    entry = visit(entry, THIEF, NOW + 60, max_age=max_age)
    assert entry.is_released(NOW + 62)
    entry = visit(None, THIEF, NOW + 62, former=entry)
    assert standing(entry) == root
    # Once that time is over it is a host that nobody knows.
    gone = visit(visit(None, root, NOW), THIEF, NOW + 60, max_age=0)
    assert standing(visit(None, THIEF, NOW + 11 * DAY, former=gone)) == THIEF


def test_what_is_removed_has_no_pins_and_is_no_known_host() -> None:
    removed = visit(visit(None, OWNER, NOW), OWNER, NOW + 1, max_age=0)
    assert (removed.pins, removed.report_uri, removed.is_released(NOW + 1)) == ((), None, True)
    assert removed.root_ends_at == NOW + 10 * DAY


def test_a_known_host_takes_a_root_after_seven_days_of_the_same() -> None:
    entry = visit(None, None, NOW)
    for second in (1.0, DAY, 3 * DAY, ADOPTION):
        entry = visit(entry, OWNER, NOW + second)
        assert standing(entry) is None
    entry = visit(entry, OWNER, NOW + 1 + ADOPTION)
    assert entry.recovery == NotedRecovery(OWNER)


@pytest.mark.parametrize("between", [None, THIEF], ids=["none", "another"])
def test_one_visit_without_it_begins_the_seven_days_anew(between: Recovery | None) -> None:
    entry = visit(visit(None, None, NOW), OWNER, NOW)
    entry = visit(entry, between, NOW + DAY)
    entry = visit(entry, OWNER, NOW + 2 * DAY)
    entry = visit(entry, OWNER, NOW + ADOPTION + DAY)
    assert standing(entry) is None


def test_a_clock_that_was_set_back_begins_the_seven_days_anew() -> None:
    entry = visit(visit(None, None, NOW), OWNER, NOW + 5 * DAY)
    entry = visit(entry, OWNER, NOW + DAY)
    assert entry.recovery is not None
    assert entry.recovery.offered_at == NOW + DAY


def test_the_place_of_the_files_moves_after_seven_days_and_stays_till_then() -> None:
    entry = visit(visit(None, OWNER, NOW), MOVED, NOW + DAY)
    assert standing(entry) == OWNER
    entry = visit(entry, MOVED, NOW + DAY + ADOPTION)
    assert standing(entry) == MOVED


def test_under_a_covering_superdomain_its_root_holds_for_the_new_host_too() -> None:
    above = replace(visit(None, OWNER, NOW, host="test"), include_subdomains=True)
    entry = visit(above, THIEF, NOW + DAY)
    assert entry.host == "bank.test"
    assert standing(entry) == OWNER
    bare = replace(visit(None, None, NOW, host="test"), include_subdomains=True)
    assert standing(visit(bare, THIEF, NOW + DAY)) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([None, THIEF, replace(OWNER, uri=THIEF.uri)]), st.integers(0, 20), st.floats(0, DAY))
    )
)
def test_whatever_a_thief_sends_for_a_week_the_root_is_the_owners(
    visits: list[tuple[Recovery | None, int, float]],
) -> None:
    entry, now = visit(None, OWNER, NOW, max_age=60 * 86_400), NOW
    for named, days, later in visits:
        if now + later - NOW >= ADOPTION:
            break
        now += later
        alive = None if entry.is_released(now) else entry
        header = PublicKeyPins(PINS, days * 86_400, recovery=named)
        noting = note("bank.test", alive, header, CHAIN, now, former=entry)
        entry = noting.known_host or noting.remains or entry
    assert entry.recovery is not None
    assert entry.recovery.standing == OWNER
    assert entry.root_ends_at == NOW + 60 * DAY or entry.root_ends_at == entry.expires_at
