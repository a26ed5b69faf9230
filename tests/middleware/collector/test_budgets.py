"""What is counted for all processes together: the budget of a token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dynpin.middleware.collector import Limits, ServiceSettings
from dynpin.middleware.collector.intake import Meter
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.storage import HOUR
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW, posted, report


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW - NOW % HOUR)


@pytest.fixture
def nodes(tmp_path: Path, clock: Clock) -> Iterator[list[Service]]:
    """Three nodes over one storage; a token may have ten reports in an hour."""
    settings = ServiceSettings(tokens=["shop", "api"], limits=Limits(per_token=10), clock=clock)
    with ExitStack() as stack:
        services = [Service(tmp_path / "r.sqlite", settings, has_worker=False) for _ in range(3)]
        for service in services:
            stack.callback(service.close)
        yield services


def sent(node: Service, token: str = "shop", body: object = None) -> int:
    """The status of one report's answer, once it is stored."""
    return posted(node, report() if body is None else body, token=token)


def test_a_token_has_one_budget_for_all_nodes(nodes: list[Service], clock: Clock) -> None:
    answers: list[int] = []
    for _ in range(10):
        for node in nodes:
            answers.append(sent(node))
            clock.forward(2)  # so that each looks at the others after each batch
    # A node has looked at the others before its next batch is stored: it knows of them by the one after that.
    assert 10 <= answers.count(204) <= 10 + 2 * len(nodes)
    assert set(answers) == {204, 429}
    assert answers[-6:] == [429] * 6
    assert [sent(node, "api") for node in nodes] == [204] * 3, "the other token has its own"
    clock.forward(HOUR)
    assert [sent(node) for node in nodes] == [204] * 3


def test_no_request_asks_the_storage(nodes: list[Service], monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    asked: list[int] = []
    node = nodes[0]
    accepted = node.storage.accepted

    def counted(hour: int) -> dict[str, int]:
        asked.append(hour)
        return accepted(hour)

    monkeypatch.setattr(node.storage, "accepted", counted)
    for _ in range(5):
        assert sent(node) == 204
    assert len(asked) == 1, "once in two seconds, with a batch"
    for _ in range(20):
        sent(node)
    assert len(asked) == 1
    assert node.intake.admit("POST", "/r/shop/enforce").status == 429  # type: ignore[union-attr]


def test_a_restart_forgets_nothing_of_the_hour(nodes: list[Service], tmp_path: Path, clock: Clock) -> None:
    for _ in range(10):
        assert sent(nodes[0]) == 204
    settings = ServiceSettings(tokens=["shop"], limits=Limits(per_token=10), clock=clock)
    again = Service(tmp_path / "r.sqlite", settings, has_worker=False)
    answers = [sent(again) for _ in range(4)]
    again.close()
    assert answers[0] == 204, "it has asked nobody yet"
    assert answers[2:] == [429, 429]


def test_no_answer_waits_for_a_look_at_the_others(nodes: list[Service], monkeypatch: pytest.MonkeyPatch) -> None:
    node, answered = nodes[0], threading.Event()
    accepted, looks = node.storage.accepted, list[bool]()

    def after_the_answer(hour: int) -> dict[str, int]:
        looks.append(answered.wait(60))
        return accepted(hour)

    monkeypatch.setattr(node.storage, "accepted", after_the_answer)
    assert sent(node) == 204
    answered.set()
    assert sent(node) == 204
    assert looks == [True]


def test_what_others_did_in_another_hour_does_not_count() -> None:
    meter = Meter(Limits(per_token=2))
    meter.learn(1, {"shop": 2})
    assert meter.exceeded("shop", "", 1 * HOUR) is None, "before the first request there is no hour"
    meter.learn(1, {"shop": 2})
    assert meter.exceeded("shop", "", 1 * HOUR) == "limit-token"
    meter.learn(2, {"shop": 0})
    assert meter.exceeded("shop", "", 1 * HOUR) == "limit-token"
    assert meter.exceeded("shop", "", 2 * HOUR) is None
