"""Several hosts under one root: a list changes those that were refused, and leaves the others as their headers say."""

from __future__ import annotations

from tests.recovery.conftest import HOST, MAX_AGE, Bank

SHOP, OTHER = "shop.test", "other.test"


def sign(bank: Bank, *, new: bool = False) -> None:
    bank.operator.sign(dict.fromkeys((HOST, SHOP, OTHER), bank.new_pins if new else bank.pins))


def test_a_host_that_is_noted_anew_gets_no_older_list_that_another_asked_for(bank: Bank) -> None:
    """The shop was refused, and found no list. Its pins expired, and it noted the new key from the header."""
    sign(bank)
    bank.visit(bank.header())
    bank.visit(bank.header(max_age=600), SHOP)
    bank.lose_keys()
    bank.publisher.folder = bank.folder / "nowhere"
    assert bank.refused(SHOP)
    bank.finish_looks()
    bank.later(601)
    noting = bank.visit(bank.header(*bank.new_pins), SHOP)
    assert noting is not None
    assert noting.outcome == "noted"
    bank.publisher.folder = bank.operator.www
    assert bank.refused(HOST)
    bank.finish_looks()
    assert "no news" in bank.outcome(), "the old list was read"
    assert not bank.refused(SHOP)


def test_a_header_ends_the_request_of_its_host(bank: Bank) -> None:
    """The shop was attacked, and found no list. Then it noted a header as usual, and its site changed the key."""
    sign(bank)
    bank.visit(bank.header())
    bank.visit(bank.header(), SHOP)
    bank.site.show(bank.new)
    bank.publisher.folder = bank.folder / "nowhere"
    assert bank.refused(SHOP)
    bank.finish_looks()
    bank.site.show(bank.lost)
    bank.later()
    for pins in ((*bank.pins, *bank.new_pins), bank.new_pins):
        noting = bank.visit(bank.header(*pins), SHOP)
        assert noting is not None
        assert noting.outcome == "updated"
        bank.lose_keys()
    bank.finish_looks()
    bank.publisher.folder = bank.operator.www
    bank.later()
    assert bank.refused(HOST)
    bank.finish_looks()
    assert "no news" in bank.outcome(), "the old list was read"
    assert not bank.refused(SHOP)


def test_a_list_changes_all_that_asked_and_no_other(bank: Bank) -> None:
    for name in (HOST, SHOP, OTHER):
        bank.visit(bank.header(), name)
    sign(bank)
    bank.lose_keys()
    assert bank.refused(HOST)
    assert bank.refused(OTHER)
    bank.finish_looks()
    sign(bank, new=True)
    bank.later(120)
    assert bank.heals(HOST)
    assert not bank.refused(OTHER), "it asked before, and waited for the same list"
    untouched = bank.store.entry(SHOP)
    assert untouched is not None
    assert untouched.pins == bank.pins
    bank.later()
    assert bank.heals(SHOP)


def test_a_host_that_the_list_leaves_out_waits_for_the_next_one(bank: Bank) -> None:
    for name in (HOST, SHOP):
        bank.visit(bank.header(), name)
    bank.lose_keys()
    bank.operator.sign({HOST: bank.new_pins})
    assert bank.refused(SHOP)
    assert bank.refused(HOST)
    bank.finish_looks()
    bank.later()
    if bank.refused(HOST):  # the shop's look was under way when the bank asked
        bank.finish_looks()
    assert not bank.refused(HOST)
    due = bank.store.looks()[0].next_look_at
    assert due is not None
    assert due - bank.clock() <= 60


def test_a_request_ends_with_the_pins_of_its_host(bank: Bank) -> None:
    """What nobody asked for any more says nothing about past visits (RFC 7469 §5)."""
    for name, max_age in ((HOST, MAX_AGE), (SHOP, 600), (OTHER, MAX_AGE)):
        bank.visit(bank.header(max_age=max_age), name)
    bank.lose_keys()
    assert all(bank.refused(name) for name in (HOST, SHOP, OTHER))
    bank.finish_looks()
    bank.store.forget(OTHER)
    bank.later(601)
    bank.visit(bank.header(*bank.new_pins), SHOP)
    assert [host for (host,) in bank.store.database.select("SELECT host FROM asked")] == [HOST]
