"""Test an agent with rules: each rule has its own servers and store, and several rules run at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from dynpin.counts import counted
from dynpin.lab.network import TLSServer
from dynpin.lab.residents import Answer, Task
from dynpin.lab.score.agent import Agent, Description
from dynpin.lab.score.process import Children
from dynpin.lab.score.result import Score, Verdict
from dynpin.lab.score.rules import Forget, Pass, Preload, Reports, Restart, Rule, Serve, Unreached, Visit
from dynpin.lab.score.testbed import Keys, PlainServer, Testbed

__all__ = ["BASIC", "score"]

# The rule that tells whether the agent notes at all: an agent that notes nothing keeps half of the rules only for that.
BASIC = "first-use"
# After so many hangs of one agent the run ends.
_MOST_HANGS = 3
# How long a thread may take to end after its agent, in seconds: its servers close.
_PATIENCE = 10.0
# RFC 7469 §3.
_MEMBERS: dict[str, type] = {
    "date-time": str,
    "hostname": str,
    "port": int,
    "effective-expiration-date": str,
    "include-subdomains": bool,
    "noted-hostname": str,
    "served-certificate-chain": list,
    "validated-certificate-chain": list,
    "known-pins": list,
}


def score(
    agent: str,
    description: Description,
    rules: Sequence[Rule],
    *,
    timeout: float = 20.0,
    processes: int | None = None,
    progress: Callable[[], object] | None = None,
) -> Score:
    """Test an agent with rules.

    Args:
        agent: the agent as the user named it, for the result.
        description: the agent.
        rules: the rules, in the order of the result.
        timeout: seconds for each task of the agent; then it is ended.
        processes: how many rules run at a time; None for the number of processors.
        progress: called after each rule.

    Raises:
        ValueError: if the agent cannot run on this machine.
    """
    known = {rule.id: rule for rule in rules}
    children, keys, found = Children(), Keys(), dict[str, Verdict]()
    hosts = tuple(sorted({host for rule in rules for host in _hosts(rule)}))
    # A process that the agent left running may write there during the removal: that must not cost the result.
    with tempfile.TemporaryDirectory(prefix="dynpin-score-", ignore_cleanup_errors=True) as folder:
        count = min(processes or os.cpu_count() or 1, max(1, len(rules)))
        agents: list[Agent] = []
        for number in range(count):
            place = Path(folder) / f"agent-{number}"
            place.mkdir()
            (place / "ca.pem").write_text(keys.trusted)
            agents.append(Agent(description, children, place, timeout, hosts))
        agents[0].check()
        try:
            # This rule comes first, since others depend on it.
            if BASIC in known:
                found[BASIC] = play(known[BASIC], agents[0], keys)
                if progress is not None:
                    progress()
            why = _no_noting(found.get(BASIC))
            rest: list[Rule] = []
            for rule in rules:
                if rule.needs_noting and why:
                    found[rule.id] = Verdict(rule, "not testable", why=why)
                elif rule.id not in found:
                    rest.append(rule)
            with contextlib.closing(_played(rest, agents, keys)) as verdicts:
                for verdict in verdicts:
                    found[verdict.rule.id] = verdict
                    if progress is not None:
                        progress()
        finally:
            children.end()
    return Score(agent, description.title, description.model, [found[rule.id] for rule in rules])


def _no_noting(basic: Verdict | None) -> str:
    """Why rules about noting cannot be tested with this agent; empty if it notes."""
    if basic is None or basic.outcome == "held":
        return ""
    return basic.why if basic.outcome == "not testable" else f"the agent notes no pins ({basic.rule.id}: {basic.why})"


def _played(rules: Sequence[Rule], agents: Sequence[Agent], keys: Keys) -> Generator[Verdict]:
    """The verdicts as they arrive. Each agent has a thread, since the agents' processes do the work."""
    waiting: queue.SimpleQueue[Rule] = queue.SimpleQueue()
    done: queue.SimpleQueue[Verdict | BaseException] = queue.SimpleQueue()
    for rule in rules:
        waiting.put(rule)

    def work(agent: Agent) -> None:
        try:
            while True:
                rule = waiting.get_nowait()
                hangs = sum(each.hangs for each in agents)
                if hangs >= _MOST_HANGS:
                    done.put(
                        Verdict(rule, "not testable", why=f"the agent had to be ended {counted(hangs, 'time')} before")
                    )
                else:
                    done.put(play(rule, agent, keys))
        except queue.Empty:
            agent.restart()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            done.put(error)

    threads = [threading.Thread(target=work, args=(agent,), daemon=True) for agent in agents]
    for thread in threads:
        thread.start()
    try:
        for _ in rules:
            yield _verdict_or_raise(done.get())
    except BaseException:  # also Ctrl-C: waiting rules are not tested, and running ones end with their agent
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        agents[0].children.end()
        raise
    finally:
        # A thread that continued would write into the folder while it is removed.
        for thread in threads:
            thread.join(_PATIENCE)


def _verdict_or_raise(came: Verdict | BaseException) -> Verdict:
    if isinstance(came, BaseException):
        raise came
    return came


def _hosts(rule: Rule) -> Iterator[str]:
    for step in rule.steps:
        if isinstance(step, Visit | Serve):
            yield step.host.lower()
            if isinstance(step, Visit) and step.redirect:
                yield step.redirect
    yield "reports.test"


class _Undecided(Exception):
    """The rule cannot be tested, for this reason."""


class _Broken(Exception):
    """The rule is broken, for this reason."""


def play(rule: Rule, agent: Agent, keys: Keys) -> Verdict:
    """Test an agent with one rule. The store is empty at first."""
    # Removed with the agent's own folder: a client that stays may write its store after the rule.
    try:
        folder = Path(tempfile.mkdtemp(dir=agent.folder, prefix=f"{rule.id}-"))
    except FileNotFoundError:
        return Verdict(rule, "not testable", why="the agent removed its folder")
    with Testbed(keys) as testbed:
        playing = _Playing(agent, keys, testbed, folder)
        try:
            for step in rule.steps:
                playing.take(step)
        except _Undecided as reason:
            return Verdict(rule, "not testable", tuple(playing.seen), str(reason))
        except _Broken as reason:
            return Verdict(rule, "broken", tuple(playing.seen), str(reason))
        return Verdict(rule, "held", tuple(playing.seen))


class _Playing:
    """One rule with one agent.

    Attributes:
        seen: the observations, one line for each step.
    """

    def __init__(self, agent: Agent, keys: Keys, testbed: Testbed, folder: Path) -> None:
        self.seen: list[str] = []
        self._agent, self._keys, self._testbed = agent, keys, testbed
        self._began = time.time()
        self._ahead = 0
        self._pins: tuple[str, ...] = ()
        self._served: dict[str, tuple[int, int, int]] = {}
        self._task = Task(do="visit", store=str(folder / "store"), ca=str(agent.folder / "ca.pem"), now=self._began)

    def take(self, step: object) -> None:
        """Take one step."""
        match step:
            case Serve():
                self._testbed.serve(step)
                self._served[step.host] = _counted(self._testbed.tls(step.host))
            case Visit():
                self._visit(step)
            case Pass():
                self._pass(step.seconds)
            case Forget():
                self._must(replace(self._now(), do="forget", host=step.host))
                self.seen.append(f"{step.host} is forgotten")
            case Preload():
                self._pins = tuple(self._keys.pins[name] for name in step.pins)
                self._must(replace(self._now(), do="preload", host=step.host))
                self.seen.append(f"static pins for {step.host}: {', '.join(step.pins)}")
            case Restart():
                self._agent.restart()
                self.seen.append("the process ended")
            case Reports():
                self._reports(step)
            case Unreached():
                self._unreached(step)
            case _:
                raise TypeError(step)

    def _now(self) -> Task:
        return replace(self._task, now=self._began + self._ahead, ahead=self._ahead, pins=self._pins)

    def _must(self, task: Task) -> None:
        answer = self._agent.do(task)
        if answer.outcome != "done":
            raise _Undecided(answer.detail or f"{task.do}: {answer.outcome}")

    def _pass(self, seconds: int) -> None:
        description = self._agent.description
        if description.age:
            self._must(replace(self._now(), do="age", seconds=seconds))
        elif not (description.resident or description.takes_time):
            raise _Undecided("the agent's clock cannot be set")
        else:
            self._ahead += seconds
        self.seen.append(f"{counted(seconds, 'second')} pass")

    def _visit(self, step: Visit) -> None:
        # For a client that reads no header, only rules about static pins can be tested.
        if not self._agent.description.notes and step.headers:
            raise _Undecided("the agent reads no headers")
        url = self._testbed.serve(step)
        judged = step.judge or step.host
        server = self._testbed.plain if step.scheme == "http" else self._testbed.tls(judged, step.port)
        before = _counted(server)
        answer = self._agent.do(replace(self._now(), do="visit", url=url, host=step.host))
        self._testbed.wait_until_read(at_once=self._agent.description.resident)
        requests, connections, resumed = (after - b for after, b in zip(_counted(server), before, strict=True))
        outcome, detail = _outcome(answer, reached=requests > 0, connected=connections > 0)
        self.seen.append(f"{step.host} shows {step.chain}: {outcome}{f' ({detail})' if detail else ''}")
        if answer.outcome == "unsupported":
            raise _Undecided(answer.detail)
        if step.resumed and not resumed:
            raise _Undecided("the agent offered no TLS session to resume")
        if outcome == step.expect:
            return
        told = f"{judged} was {outcome}, and should have been {step.expect}{f': {detail}' if detail else ''}"
        if step.decides and outcome != "failed":
            raise _Broken(told)
        raise _Undecided(told if outcome != "failed" else f"the visit of {step.host} failed: {detail}")

    def _reports(self, step: Reports) -> None:
        reports = self._testbed.plain.reports
        told = f"{counted(len(reports), 'report')} arrived"
        self.seen.append(told)
        if len(reports) != step.expect:
            raise (_Broken if step.decides else _Undecided)(f"{told}, and should have been {step.expect}")
        wrong = next((why for why in map(_wrong_report, reports) if why), "") if step.members else ""
        if wrong:
            raise _Broken(wrong)

    def _unreached(self, step: Unreached) -> None:
        after = _counted(self._testbed.tls(step.host))
        requests, connections, _ = (now - before for now, before in zip(after, self._served[step.host], strict=True))
        self.seen.append(f"{step.host}: {counted(connections, 'connection')}, {counted(requests, 'byte')} of requests")
        if requests:
            raise _Broken(f"a request reached {step.host}, which shows no pinned key")
        if not connections:
            raise _Undecided(f"the agent never connected to {step.host}")


def _counted(server: TLSServer | PlainServer) -> tuple[int, int, int]:
    """The bytes that have reached a server, its connections, and how many of these resumed a session."""
    if isinstance(server, PlainServer):
        return server.requests, server.requests, 0
    return server.application_bytes, server.connections, server.resumptions


def _outcome(answer: Answer, *, reached: bool, connected: bool) -> tuple[str, str]:
    """The outcome of a visit: first from the server's counts, then from the agent's answer."""
    if reached:
        return "served", "" if answer.outcome == "served" else f"but the request was sent: {answer.detail}"
    if not connected and answer.outcome in ("served", "refused"):
        return "failed", f"the agent never connected to the server that the rule is about ({answer.detail})"
    if answer.outcome == "served":
        return "failed", "the agent reports that it was served, but no request arrived"
    return answer.outcome, answer.detail


def _wrong_report(body: bytes) -> str:
    """The fault of a report, in words; empty if it is as in RFC 7469 §3."""
    try:
        report: object = json.loads(body)
    except ValueError:
        return "a report is not JSON"
    if not isinstance(report, dict):
        return "a report is not a JSON object"
    members = cast("dict[str, object]", report)
    wrong = [name for name, kind in _MEMBERS.items() if not isinstance(members.get(name), kind)]
    if wrong:
        return f"these members of a report are missing or have a wrong type: {', '.join(wrong)}"
    pins = cast("list[object]", members["known-pins"])
    return "" if pins and all('="' in str(pin) for pin in pins) else "known-pins has an entry that is not a pin"
