"""A list that a program follows pins before the first visit, and gives way to the user's own pins."""

from __future__ import annotations

from tests.recovery.conftest import HOST, PINS, THIEF, Bank


def test_a_followed_list_pins_before_the_first_visit(bank: Bank) -> None:
    bank.operator.sign({HOST: PINS})
    look = bank.store.follow(bank.publisher.uri, bank.operator.root)
    assert look.outcome is not None
    assert look.next_look_at is not None
    assert 0.8 * 86_400 < look.next_look_at - bank.clock() < 1.2 * 86_400
    assert bank.refused(), "the first visit is at the attacker"
    known = bank.store.known_host(HOST)
    assert known is not None
    assert (known.source, known.origin) == ("static", bank.publisher.uri)


def test_a_first_visit_at_the_attacker_is_what_recovery_cannot_undo(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.new_pins})
    bank.visit(bank.header(root=THIEF, uri="http://127.0.0.1:9"))
    bank.lose_keys()
    bank.stays_refused("")


def test_followed_pins_give_way_to_those_of_the_user(bank: Bank) -> None:
    bank.store.pin(HOST, bank.pins)
    bank.operator.sign({HOST: PINS, "shop.test": PINS, "other.test": PINS})
    bank.store.follow(bank.publisher.uri, bank.operator.root)
    bank.store.forget("shop.test")
    bank.operator.sign({HOST: PINS[:1], "shop.test": PINS[:1], "other.test": PINS[:1]})
    bank.offset[0] += 2 * 86_400
    bank.store.follow(bank.publisher.uri, bank.operator.root)
    known = {entry.host: entry.pins for entry in bank.store.hosts()}
    assert known == {HOST: bank.pins, "other.test": PINS[:1]}


def test_a_followed_list_that_is_refused_is_looked_at_at_once(bank: Bank) -> None:
    bank.operator.sign({HOST: bank.pins})
    bank.store.follow(bank.publisher.uri, bank.operator.root)
    bank.lose_keys()
    bank.operator.sign({HOST: bank.new_pins})
    bank.later()
    assert bank.heals()
