"""How signed lists shorten a lock-out: by the formula, on real sockets, and in the simulator's output."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dynpin.cli.app import app
from dynpin.clientstore import PinStore
from dynpin.clientstore.healing import Healing
from dynpin.errors import InvalidStudy
from dynpin.lab.simulation import (
    PRESETS,
    Recovery,
    SitePolicy,
    Study,
    advise,
    curves,
    intervals,
    simulate,
)
from dynpin.lab.simulation.calendar import Loss
from dynpin.lab.simulation.healing import play_with_lists
from dynpin.lab.simulation.study import study_of
from dynpin.lab.simulation.study_table import DAY
from dynpin.lab.simulation.visits import Visits
from dynpin.lab.simulation.world import build
from tests.lab import closed_forms
from tests.lab.clients_in_turn import RecorderLedger
from tests.lab.test_simulation import BOUND, CLIENTS, MAX_AGE, WHEN, Floats, averaged, study
from tests.recovery.conftest import HOST, Bank, authority, bank
from tests.recovery.conftest import MAX_AGE as SITE_MAX_AGE

__all__ = ["authority", "bank"]

# The looks after a refusal end a day to a day and an hour later. The last one before a signature may be an hour old.
HOUR = 1 / 24 + 2 / DAY
# Not in the formula: a client is refused, its pins expire within the day of its looks, it notes the new key, applies
# the old list again, and is locked out until its next visit. Here this is one client.
FORGOTTEN = 1.5 / CLIENTS


def within(counted: Floats, low: Floats, high: Floats) -> None:
    error = closed_forms.sampling_error((low + high) / 2, CLIENTS)
    assert counted.size > 100
    assert np.all(counted >= low - BOUND * error - 1e-12)
    assert np.all(counted <= high + BOUND * error + FORGOTTEN)
    assert high.max() > 0.1


@pytest.mark.parametrize("signed", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_lock_out_with_signed_lists_is_that_of_the_formula(signed: float, share: float) -> None:
    recovery = Recovery(share, round(signed * DAY))
    (outcome,) = simulate(replace(study(Loss(WHEN * DAY)), recovery=recovery))
    healed = outcome.with_recovery
    assert healed is not None
    after = outcome.days[outcome.days >= WHEN] - WHEN
    without = averaged(closed_forms.locked_out_after_loss, MAX_AGE, WHEN, after)

    def expected(goes_on: float) -> Floats:
        form = partial(closed_forms.locked_out_with_list, goes_on=goes_on)
        with_list = averaged(form, MAX_AGE, WHEN, signed, after)
        return share * with_list + (1 - share) * without

    low, high = expected(1 + HOUR), expected(1)
    counted = healed.locked_out[outcome.days >= WHEN]
    settled = (after < signed) | (after >= signed + HOUR)
    within(counted[settled], low[settled], high[settled])
    # Client-days are the area under the curve, in hourly steps, without the hour in which looks continue.
    area = float(high.sum()) / 24 * CLIENTS
    assert healed.locked_out_days == pytest.approx(area, rel=0.015)
    assert healed.locked_out_days < outcome.locked_out_days
    # The results without lists are the same as those of a study without lists.
    (alone,) = simulate(study(Loss(WHEN * DAY)))
    assert np.array_equal(alone.tally.locked_out, outcome.tally.locked_out)
    assert alone.waited_days == outcome.waited_days > healed.waited_days


@pytest.mark.parametrize("signed", [0.0, 0.5])
def test_clients_that_follow_a_list_are_healed_within_a_day(signed: float) -> None:
    recovery = Recovery(1.0, round(signed * DAY), "followed")
    (outcome,) = simulate(replace(study(Loss(WHEN * DAY)), recovery=recovery))
    healed = outcome.with_recovery
    assert healed is not None
    at = (outcome.days >= WHEN) & (outcome.days < WHEN + 5)
    after = outcome.days[at] - WHEN
    expected = averaged(closed_forms.locked_out_with_followed_list, signed, after)
    settled = (after < signed) | (after >= signed + HOUR)
    # Its daily look takes a second, so its time of day moves by one second each day.
    within(healed.locked_out[at][settled], expected[settled] - 0.001, expected[settled] + 0.001)
    assert healed.tally.ever_locked_out == CLIENTS
    assert not healed.locked_out[at][after > signed + 1 + HOUR].any()


def test_only_refused_clients_wait() -> None:
    (outcome,) = simulate(study(Loss(WHEN * DAY)))
    # Locked out for L days, first refused after T: the rest is L - T. Computed for one rate, on a fine grid.
    after = np.arange(0.5, MAX_AGE * 1000) / 1000

    def waiting(rate: float) -> Floats:
        share: Floats = closed_forms.locked_out_after_loss(rate, MAX_AGE, WHEN, after) * -np.expm1(-rate * after)
        return share

    waits = averaged(waiting)
    assert outcome.waited_days == pytest.approx(float(waits.sum()) / 1000 * CLIENTS, rel=0.01)


# -- the real client ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [20, 100, 4000])
def test_a_client_on_real_sockets_is_healed_when_the_model_is(bank: Bank, tmp_path: Path, signed: int) -> None:
    """Seconds from the refusal to the signature. The client's clock moves only when it is set."""
    begun = now = time.time()
    with PinStore(tmp_path / "frozen", clock=lambda: now) as bank.store:
        bank.lock_out()
        assert bank.refused()
        bank.finish_looks()
        looks: list[float] = []
        while not looks or looks[-1] < signed:
            (look,) = bank.store.looks()
            assert look.next_look_at is not None
            assert "no news" in bank.outcome()
            looks.append(look.next_look_at - begun)
            if looks[-1] >= signed:
                bank.operator.sign({HOST: bank.new_pins})
            now = look.next_look_at
            # As in the next process: a thread of this one sleeps by the machine's clock.
            healing = Healing(bank.store)
            healing.resume()
            bank.finish_looks()
        assert not bank.refused(), bank.outcome()
    # In the model a look takes a second. It makes as many looks as here, and one more at the refusal.
    assert looks[-1] + len(looks) + 1 == _locked_out(signed)


def _locked_out(signed: int) -> int:
    """For how many seconds the model's client is locked out after its refusal, if it never visits again."""
    policy, lost = SitePolicy("key", SITE_MAX_AGE), 2 * DAY
    world = build(policy, [Loss(lost)], 9 * DAY, 60 * DAY, signed_after=signed)
    ledger = RecorderLedger(list(range(lost, lost + 2 * DAY)))
    play_with_lists(
        world,
        Visits.of([[DAY, lost]], 9 * DAY),
        np.ones((0, 1), np.bool_),
        ledger,
        recovery=Recovery(),
        listed=np.ones(1, np.bool_),
        phases=np.zeros(1, np.int64),
    )
    return max(second for _, second in ledger.told.locked) + 1 - lost


# -- output ------------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["simulate", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


LOSS = ("--max-age", "30 days", "--max-age", "1 year", "--loss", "40", "--days", "110", "--clients", "1000")


def test_tables_have_client_days_with_lists_and_without() -> None:
    told = run(*LOSS, "--recovery", "6 hours")
    assert max(map(len, told.splitlines())) <= 80
    assert "Signed lists: 100 % of the clients' sites have one, signed 6 hours after" in told
    assert "1 year, 1 backup (held to" in told
    assert "Signed lists" not in run(*LOSS)


def test_a_program_reads_the_same(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        "clients = 1000\ndays = 110\n[[policy]]\nmax_age = '30 days'\n[[event]]\nkind = 'loss'\nday = 40\n"
        "[recovery]\nshare = 0.5\nsigned_after = '6 hours'\nwatch = 'followed'\n"
    )
    told = json.loads(run(file, "--json"))
    assert told["recovery"] == {"share": 0.5, "signed_after": 6 * 3600, "watch": "followed"}
    (policy,) = told["policies"]
    healed = policy["with_recovery"]
    assert healed["waited_client_days"] < policy["waited_client_days"]
    assert len(healed["locked_out"]) == len(policy["locked_out"]) == 111
    rows = list(csv.DictReader(io.StringIO(run(file, "--csv"))))
    assert [row["signed_list"] for row in rows] == ["False", "True"]
    for row, figures in zip(rows, (policy, healed), strict=True):
        for name in ("locked_out_client_days", "waited_client_days", "fooled_at_most", "turned_away"):
            assert [float(row[f"{name}{end}"]) for end in ("", "_low", "_high")] == [
                figures[f"{name}{end}"] for end in ("", "_low", "_high")
            ]
            assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]


def test_the_picture_has_a_thin_line_for_each_policy() -> None:
    policies = tuple(SitePolicy(f"{days} days", days * DAY) for days in (7, 30))
    with_lists = Study(PRESETS["website"], policies, (Loss(40 * DAY),), 500, 90, recovery=Recovery())
    drawn = curves.figure(with_lists, simulate(with_lists, processes=1))
    lines = [line for line in drawn.axes[0].get_lines() if np.asarray(line.get_xdata()).size > 2]
    widths = sorted(line.get_linewidth() for line in lines)
    assert widths == [0.9, 0.9, 2.1, 2.1]
    assert "thin: with signed lists" in [text.get_text() for text in drawn.texts]
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["7 days", "30 days"]


def test_advice_weighs_a_signed_list() -> None:
    found = advise(Study(PRESETS["website"], (), clients=4000), processes=1)
    best = found.best
    assert best.healed < best.locked_out
    assert best.healed_waits < 0.1 < best.waits
    assert found.with_recovery.healed_cost == min(choice.healed_cost for choice in found.choices)
    assert found.with_recovery.max_age > best.max_age
    assert "With a signed list, signed 1 day after a loss" in found.reasons[-1]
    late = advise(Study(PRESETS["website"], (), clients=4000, recovery=Recovery(0.5, 9 * DAY)), processes=1)
    assert "With a signed list for 50 % of the clients, signed 9 days after a loss" in late.reasons[-1]
    assert late.best.cost == best.cost
    assert late.best.healed_cost > best.healed_cost


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 2}, "recovery: share = 2 is not understood"),
        ({"watch": "weekly"}, '"refused" or "followed"'),
        ({"signed": "1 day"}, "did you mean signed_after"),
    ],
)
def test_a_recovery_that_is_refused_says_why(values: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match=message):
        study_of({"policy": [{"max_age": "30 days"}], "recovery": values}, tmp_path)


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_an_interval_holds_the_truth_19_times_in_20() -> None:
    """Client-days and the largest share in many small studies, compared with theory."""
    after = np.arange(0, MAX_AGE * 24) / 24 + 0.5 / 24
    days = float(averaged(closed_forms.locked_out_after_loss, MAX_AGE, WHEN, after).sum()) / 24
    share = float(averaged(closed_forms.locked_out_after_loss, MAX_AGE, WHEN, np.zeros(1))[0])
    hits = np.zeros(2)
    for seed in range(200):
        (outcome,) = simulate(replace(study(Loss(WHEN * DAY)), clients=400, seed=seed), processes=1)
        low, high = outcome.interval_at_most("locked_out")
        hits += abs(outcome.locked_out_days - 400 * days) <= outcome.half_width("locked_out"), low <= share <= high
    # 190 of 200 are expected; four standard deviations around that are 178 to 200.
    assert np.all(hits >= 178)
    assert hits.sum() < 400


@pytest.mark.parametrize(
    ("count", "clients", "low", "high"),
    # Wilson's interval from statsmodels: proportion_confint(count, n, method="wilson").
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341), (1, 1000, 0.000177, 0.005644)],
)
def test_the_interval_of_a_share(count: int, clients: int, low: float, high: float) -> None:
    assert intervals.of_share(count, clients) == pytest.approx((low, high), abs=2e-5)
