"""What the worker asks: who waits for a verdict, what rises, and who has the lease."""

from __future__ import annotations

from dynpin.middleware.collector.storage import (
    Filter,
    PendingAlert,
    Term,
    Triaged,
)
from dynpin.middleware.collector.storage.sql import SQLStorage
from tests.middleware.collector.conftest import NOW

from ..conftest import arrival, change
from .conftest import PIN, Make, judge, together


def test_a_flood_of_one_source_makes_no_other_wait(storage: SQLStorage) -> None:
    storage.add([arrival(f"h{number}.test", source="10.0.0.0/24") for number in range(300)], {})
    storage.add([arrival("one.test", source="10.0.1.0/24"), arrival("two.test", source="10.0.2.0/24")], {})
    for _ in range(2):
        first, *others = [group.host for group, _, _ in storage.untriaged(4, "x")]
        assert [first[:1], *sorted(others[:2]), others[2][:1]] == ["h", "one.test", "two.test", "h"]
        if storage.groups(Filter((Term("verdict", "undecided"),))).entries:
            break
        everything = storage.untriaged(999, "x")
        storage.set_verdicts((group, Triaged("undecided", "unclear", "", "{}")) for group, _, _ in everything)


def test_a_verdict_moves_the_reports_and_names_the_authorities(storage: SQLStorage) -> None:
    storage.add([arrival("a.test"), arrival("a.test"), arrival("b.test")], {})
    judge(storage)
    assert storage.untriaged(9, "x") == []
    assert [group.host for group, _, _ in storage.untriaged(9, "y")] == ["a.test", "b.test"]
    assert storage.authorities([PIN, "other"]) == {PIN: "CA"}
    assert storage.activity(Filter((Term("verdict", "undecided"),)), 0, 10**9)[0][2] == 3
    assert [group.diagnosis for group in storage.unannounced(9)] == ["{}", "{}"]
    storage.announce([], [PendingAlert(group) for group in storage.unannounced(9)], NOW)
    assert storage.unannounced(9) == []


def test_a_flood_of_new_groups_delays_no_alert_of_an_attack(storage: SQLStorage) -> None:
    storage.add([arrival(f"h{number}.test") for number in range(30)] + [arrival("late.test")], {})
    told = [(group, "attack" if group.host == "late.test" else "unclear") for group, _, _ in storage.untriaged(99, "x")]
    storage.set_verdicts((group, Triaged("undecided", severity, "", "{}")) for group, severity in told)
    storage.announce(["mail"], [PendingAlert(group) for group in storage.unannounced(99)], NOW)
    storage.keep_channels(["mail"])
    assert storage.pending_alerts("mail", 5)[0].group.host == "late.test"


def test_what_rises(storage: SQLStorage) -> None:
    hour = int(NOW // 3600)
    storage.add([arrival("calm.test", NOW - 3600 * n) for n in range(24)] + [arrival("calm.test")], {})
    storage.add([arrival("rising.test", NOW - 7200)] + [arrival("rising.test")] * 10, {})
    storage.add([arrival("back.test")], {})
    storage.set_state(arrival("back.test").cause.key, "resolved")
    found = {rise.group.host: (rise.reports, rise.before) for rise in storage.rising(hour, 5, 5)}
    assert found == {"rising.test": (10, 1 / 24), "back.test": (1, 0.0)}


def test_of_two_workers_one_has_the_lease(make: Make) -> None:
    one, other = make(), make()
    assert one.claim("verdicts", "one")
    assert not other.claim("verdicts", "other")
    assert one.claim("verdicts", "one"), "it prolongs its own"
    assert other.claim("alerts", "other")
    one.release("one")
    assert other.claim("verdicts", "other")
    change(one, "UPDATE leases SET expires_at = expires_at - 61")
    assert one.claim("verdicts", "one"), "it ran out"
    change(one, "UPDATE leases SET expires_at = expires_at + 3600")
    assert other.claim("verdicts", "other"), "a clock that stood ahead holds nobody up"


def test_of_many_that_claim_together_one_has_the_lease(storage: SQLStorage) -> None:
    won: list[int] = []

    def claim(number: int) -> None:
        if storage.claim("verdicts", f"worker-{number}"):
            won.append(number)

    together(claim, 8)
    assert len(won) == 1
