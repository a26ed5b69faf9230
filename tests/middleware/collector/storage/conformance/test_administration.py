"""Sessions, tokens, the history of who did what, and what keeps a storage itself."""

from __future__ import annotations

import pytest

from dynpin.errors import StoreError
from dynpin.middleware.collector import Token, new_api_token
from dynpin.middleware.collector.storage import (
    AuditEntry,
    Filter,
    SiteState,
)
from dynpin.middleware.collector.storage.sql import SQLStorage
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW

from ..conftest import arrival, change
from .conftest import Make, together


def test_sessions_and_tokens_of_the_api(storage: SQLStorage, clock: Clock) -> None:
    storage.add_session("s", "Ann", NOW + 10)
    assert storage.session("s") == "Ann"
    clock.forward(11)
    assert storage.session("s") is None
    storage.add_session("t", "Bob", NOW + 99)
    storage.end_session("t")
    assert storage.session("t") is None
    _, token = new_api_token("ramp", ["read", "site:a.test"], NOW, 1)
    assert storage.add_api_token(token)
    assert not storage.add_api_token(new_api_token("ramp", ["read"], NOW, 1)[1])
    storage.use_api_token(token.digest, NOW + 5)
    used = storage.api_token(token.digest)
    assert used is not None
    assert (used.scopes, used.used_at) == (("read", "site:a.test"), NOW + 5)
    assert storage.revoke_api_token("ramp")
    assert not storage.revoke_api_token("ramp")
    again = new_api_token("ramp", ["triage"], NOW, 1)[1]
    assert storage.add_api_token(again)
    assert storage.api_tokens() == [again]


def test_who_did_what_is_kept_and_failures_push_nothing_out(storage: SQLStorage) -> None:
    storage.add([arrival()], {})
    key = arrival().cause.key
    assert storage.set_state(key, "muted", AuditEntry(NOW, "Ann", "192.0.2.1", "muted", key))
    assert not storage.set_state("no-such", "muted", AuditEntry(NOW, "Ann", "", "muted", "no-such"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynpin.middleware.collector.storage.sql.decisions._MAX_FAILURES", 5)
        for number in range(9):
            storage.record(AuditEntry(NOW + number, "", "192.0.2.9", "sign-in-failed"))
    found = storage.audit()
    assert [entry.action for entry in found] == ["sign-in-failed"] * 5 + ["muted"]
    assert storage.audit(key) == [AuditEntry(NOW, "Ann", "192.0.2.1", "muted", key)]
    assert storage.groups(Filter()).entries[0].state == "muted"


def test_tokens_of_settings_are_remembered(storage: SQLStorage) -> None:
    storage.name_tokens(["a", "b", "a"], NOW)
    storage.name_tokens(["b"], NOW + 1)
    storage.name_tokens([], NOW + 2)
    assert storage.named_tokens() == {"a": NOW, "b": NOW + 1}


def test_a_probe_writes(storage: SQLStorage, clock: Clock) -> None:
    clock.forward(3)
    storage.probe(2)
    assert storage.fact("written_at") == NOW + 3


def test_a_storage_that_was_closed_may_be_used_again(storage: SQLStorage) -> None:
    secret = storage.secret()
    storage.close()
    assert storage.secret() == secret


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            "UPDATE alembic_version SET version_num = '9999'",
            r"written by a newer dynpin .* upgrade dynpin and start it again",
        ),
        ("DELETE FROM alembic_version", r"put a backup in its place|no tables yet"),
    ],
)
def test_a_schema_that_somebody_changes_in_use_is_not_used(make: Make, damage: str, told: str) -> None:
    storage, other = make(), make()
    storage.add([arrival()], {})
    other.probe(2)
    change(other, damage)
    for use in (storage.tokens, lambda: storage.probe(2), lambda: storage.add([arrival()], {}), other.secret):
        with pytest.raises(StoreError, match=told):
            use()


def test_tokens_and_facts_are_kept(storage: SQLStorage, clock: Clock) -> None:
    storage.add_token(Token("x", "Shop", ("a.test",), NOW))
    clock.forward(5)
    assert storage.revoke_token("x")
    assert storage.tokens() == [Token("x", "Shop", ("a.test",), NOW, NOW + 5)]
    assert storage.fact("none") is None
    storage.set_fact("some", 1.5)
    assert storage.fact("some") == 1.5
    assert len(storage.secret()) == 64
    assert storage.secret() == storage.secret()


def test_of_two_that_change_the_state_of_a_site_one_is_first(storage: SQLStorage, clock: Clock) -> None:
    assert storage.site_state("a.test") is None
    assert storage.set_site_state("a.test", "{}", expected=1, by="node") is None
    first = storage.set_site_state("a.test", '{"stage": 1}', expected=0, by="node-1")
    assert first == storage.site_state("a.test") == SiteState("a.test", 1, '{"stage": 1}', NOW, "node-1")
    assert storage.set_site_state("a.test", '{"stage": 7}', expected=0, by="node-2") is None
    clock.forward(5)
    second = storage.set_site_state("a.test", '{"stage": 2}', expected=1, by="node-2")
    assert second == storage.site_state("a.test") == SiteState("a.test", 2, '{"stage": 2}', NOW + 5, "node-2")


def test_many_that_count_in_the_state_of_a_site_lose_no_step(storage: SQLStorage) -> None:
    def count(_: int) -> None:
        for _ in range(10):
            while True:
                seen = storage.site_state("a.test")
                version, number = (0, 0) if seen is None else (seen.version, int(seen.state))
                if storage.set_site_state("a.test", str(number + 1), expected=version, by="") is not None:
                    break

    together(count, 4)
    last = storage.site_state("a.test")
    assert last is not None
    assert (last.state, last.version) == ("40", 40)
