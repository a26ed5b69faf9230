"""The published list, compared with the site: expiries, and what a client that takes the list would refuse."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.recovery import ROLES, list_faults, read_published
from dynpin.pin_list import ListedHost, PinList
from tests.recovery.operator import Operator
from tests.recovery.publisher import Publisher

A, B, C = (Pin(bytes([number]) * 32) for number in range(1, 4))
HOST, DAY = "bank.test", 86_400.0


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    operator = Operator(tmp_path)
    operator.sign({HOST: (A, B)})
    return operator


def test_it_is_read_from_a_folder_and_from_its_uri(operator: Operator) -> None:
    with Publisher(operator.www) as publisher:
        recovery = operator.repository.recovery(publisher.uri)
        for folder in (None, operator.www):
            seen = read_published(recovery, time.time(), folder=folder)
            assert (seen.problems, seen.version) == ((), 1)
            assert seen.pins is not None
            assert seen.pins.hosts == {HOST: ListedHost((A, B))}
            assert sorted(each.role for each in seen.expiries) == sorted(ROLES)


def test_after_a_new_root_it_is_the_newest_that_expires(operator: Operator) -> None:
    operator.rotate("timestamp")
    seen = read_published(operator.repository.recovery("http://127.0.0.1:9"), time.time(), folder=operator.www)
    assert {each.role: each.version for each in seen.expiries}["root"] == 2


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (0, []),
        (6, ["the timestamp expires in 23 hours"]),
        (8, ["no client believes the list", "timestamp"]),
    ],
)
def test_an_expiry_is_reported_before_it_happens(operator: Operator, days: int, told: list[str]) -> None:
    now = time.time() + days * DAY + 60
    problems = read_published(operator.repository.recovery("http://127.0.0.1:9"), now, folder=operator.www).problems
    text = "\n".join(problems)
    assert bool(problems) == bool(told)
    assert all(each in text for each in told), text


@pytest.mark.parametrize("missing", ["1.root.json", "timestamp.json", "1.targets.json", "targets"])
def test_a_half_published_folder_is_reported(operator: Operator, missing: str) -> None:
    operator.www.joinpath(missing).rename(operator.www / "away")
    seen = read_published(operator.repository.recovery("http://127.0.0.1:9"), time.time(), folder=operator.www)
    assert "no client believes the list" in seen.problems[0]
    assert seen.pins is None


def test_another_owners_folder_is_reported(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Operator(tmp_path / "other").repository.recovery("http://127.0.0.1:9")
    assert "is not the root that was noted" in read_published(other, time.time(), folder=operator.www).problems[0]


def test_a_server_that_does_not_answer_is_reported(operator: Operator) -> None:
    seen = read_published(operator.repository.recovery("http://127.0.0.1:9"), time.time())
    assert "cannot be read" in seen.problems[0]


@pytest.mark.parametrize(
    ("listed", "header", "chain", "told"),
    [
        (ListedHost((A, B)), PublicKeyPins((A, B), 60), (A,), []),
        (ListedHost((B, A)), PublicKeyPins((A, B), 60), (A,), []),
        (None, PublicKeyPins((A, B), 60), (A,), [f"does not name {HOST}"]),
        (ListedHost(()), PublicKeyPins((A, B), 60), (A,), [f"releases {HOST}"]),
        (ListedHost(()), PublicKeyPins((A, B), 0), (A,), []),
        (ListedHost((A, B)), PublicKeyPins((A, B), 0), (A,), ["pinned again"]),
        (ListedHost((A, B)), PublicKeyPins((A, B, C), 60), (A,), [f"lacks {C}"]),
        (ListedHost((A, B, C)), PublicKeyPins((A, B), 60), (A,), [f"has {C}"]),
        (ListedHost((B, C)), PublicKeyPins((A, B), 60), (A,), ["is locked out", f"lacks {A}", f"has {C}"]),
        (ListedHost((A, B), True), PublicKeyPins((A, B), 60), (A,), ["covers the subdomains"]),
        (ListedHost((A, B)), PublicKeyPins((A, B), 60, include_subdomains=True), (A,), ["covers the host alone"]),
    ],
)
def test_the_differences_between_list_and_site(
    listed: ListedHost | None, header: PublicKeyPins, chain: tuple[Pin, ...], told: list[str]
) -> None:
    faults = list(list_faults(PinList({} if listed is None else {HOST: listed}), HOST, header, [chain]))
    assert len(faults) == len(told), faults
    for each, text in zip(faults, told, strict=True):
        assert text in each
        assert each.endswith("Do: dynpin recovery sign dynpin.toml, publish")
