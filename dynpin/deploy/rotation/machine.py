"""The state machine of a rotation: publish, wait, deploy, wait, retire (RFC 7469 §2.5, §4.3).

The rule behind everything: a client holds the last header that it saw, until max-age after it saw it. So a policy may
be held until max-age after the *last response* with it. A key may be deployed when every policy that may still be held
has its pin.

If the header names a recovery root, a client that was refused follows the signed list instead. So the list is signed
again whenever the header gets other pins: before the new key is deployed, and after the old pin is retired.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from dynpin.header import PublicKeyPins
from dynpin.pins import Pin
from dynpin.report import rfc3339

from .history import Deployed, Event, Held, History, Listed, Planned, Published

__all__ = [
    "Held",
    "Stage",
    "Status",
    "Step",
    "advance",
    "bridge_header",
    "final_header",
    "held",
    "locked_out",
    "old_pins",
    "plan",
    "safe_at",
    "status",
]


def held(history: History, now: float, *, max_max_age: int | None = None) -> tuple[Held, ...]:
    """The policies that clients may hold at `now`, oldest first.

    An event after `now` was recorded by a clock that was ahead, or this clock was set back. A recorded event has
    happened, so it counts as of `now`.

    Args:
        history: what was served.
        now: seconds since the epoch, UTC.
        max_max_age: the cap on max-age of *all* clients, in seconds, if it is known (dynpin's is 60 days). Without it
            there is no cap.
    """
    published = [replace(event, at=min(event.at, now)) for event in history.events if isinstance(event, Published)]
    ends: list[float | None] = [*(event.at for event in published[1:]), None]
    found: list[Held] = []
    for event, end in zip(published, ends, strict=False):
        header = event.header
        # §2.3.3: report-only is never cached; max-age=0 leaves no policy.
        if header is None or not header.max_age or not header.pins:
            continue
        max_age = header.max_age if max_max_age is None else min(header.max_age, max_max_age)
        until = (now if end is None else end) + max_age
        if until > now:
            found.append(Held(header, event.at, end, until, event.is_assumed))
    known = [(set(each.header.pins), each.until) for each in found]
    by_nodes = (_of_node(each, now, max_max_age) for each in history.sent_by_nodes)
    return (*(each for each in by_nodes if each.until > now and not _is_among(each, known)), *found)


def _of_node(policy: Held, now: float, max_max_age: int | None) -> Held:
    """What a node has sent, and until when clients may hold it."""
    max_age = _max_age(policy.header, max_max_age)
    return replace(policy, until=(now if policy.last_at is None else policy.last_at) + max_age)


def _is_among(policy: Held, known: Sequence[tuple[set[Pin], float]]) -> bool:
    """Whether the history itself has these pins, for as long."""
    return any(set(policy.header.pins) == pins and policy.until <= until for pins, until in known)


def locked_out(policies: Iterable[Held], chain: Sequence[Pin]) -> tuple[Held, ...]:
    """The policies whose holders would be refused by a server that shows `chain` (§2.6)."""
    shown = frozenset(chain)
    return tuple(policy for policy in policies if shown.isdisjoint(policy.header.pins))


def safe_at(policies: Iterable[Held], chain: Sequence[Pin], now: float) -> float | None:
    """When `chain` may be deployed without a lock-out; None for never, as long as the present header is sent."""
    refused = locked_out(policies, chain)
    if any(policy.last_at is None for policy in refused):
        return None
    return max((policy.until for policy in refused), default=now)


def _ready_at(policies: Iterable[Held], target: Pin, now: float) -> float:
    """When a key may be deployed that is in the current header.

    A node without that header may still send one without the key. It counts as if that stopped now.
    """
    return max((policy.until for policy in locked_out(policies, (target,))), default=now)


class Stage(StrEnum):
    """The stages of a rotation."""

    UNPINNED = "unpinned"  # no policy is published
    STEADY = "steady"  # no rotation is in progress
    PUBLISH = "publish"  # the header with the new pin must be published
    SIGN = "sign"  # it is published, and the signed list does not agree with it
    SPREADING = "spreading"  # it is published, but clients may still hold one without the new pin
    DEPLOY = "deploy"  # every policy that may be held has the new key
    SETTLING = "settling"  # the new key is deployed, and a rollback must stay possible
    RETIRE = "retire"  # the old pin may be removed


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rotation: what to do, when at the earliest, and why.

    `header` is the header to send from then on, for steps that publish; `key` is the key to deploy.
    """

    name: str
    at: float
    what: str
    why: str
    header: PublicKeyPins | None = None
    key: Pin | None = None

    def to_dict(self) -> dict[str, object]:
        """The step as JSON; the time is RFC 3339 in UTC."""
        return {
            "step": self.name,
            "at": rfc3339(self.at),
            "what": self.what,
            "why": self.why,
            "header": self.header and str(self.header),
            "key": self.key and str(self.key),
        }


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a host at `now`.

    Attributes:
        stage: the stage.
        step: the next step, not before ``step.at``; None if there is none.
        held: the policies that clients may hold.
        locked_out: those whose holders refuse the deployed chain.
    """

    now: float
    stage: Stage
    step: Step | None
    held: tuple[Held, ...]
    locked_out: tuple[Held, ...]

    @property
    def is_early(self) -> bool:
        """Whether the next step must wait."""
        return self.step is not None and self.step.at > self.now


def status(history: History, now: float, *, max_max_age: int | None = None) -> Status:
    """The state of the host, and its next step."""
    policies = held(history, now, max_max_age=max_max_age)
    refused = locked_out(policies, history.chain) if history.chain else ()
    stage, step = _next(history, policies, now, max_max_age)
    return Status(now, stage, step, policies, refused)


def advance(history: History, now: float, *, max_max_age: int | None = None) -> Event:
    """The event that records the next step as done at `now`.

    Raises:
        ValueError: if there is no step, or if it is too early; the message has the earliest date.
    """
    stands = status(history, now, max_max_age=max_max_age)
    step = stands.step
    if step is None:
        raise ValueError(f"no rotation of {history.host} is under way: begin one with dynpin rotate plan --start")
    if stands.is_early:
        raise ValueError(f"too early to {step.name}: not before {rfc3339(step.at)}. {step.why}")
    rotation = history.rotation
    if step.name == "deploy" and rotation is not None:
        return Deployed(now, (rotation.target,))
    if step.name == "sign":
        return Listed(now, () if history.header is None else history.header.pins)
    return Published(now, step.header)


def plan(
    history: History,
    target: Pin,
    backups: Sequence[Pin],
    now: float,
    *,
    max_max_age: int | None = None,
) -> tuple[Step, ...]:
    """The steps of a rotation to the key `target` that begins at `now`, each with its earliest date.

    Raises:
        ValueError: if no policy is published, if the target is already deployed, or if no Backup Pin would be left.
    """
    header = history.header
    if header is None or not header.max_age or not history.chain:
        raise ValueError(f"no enforced policy of {history.host} is recorded, or no chain: dynpin rotate record both")
    if target in history.chain:
        raise ValueError(f"{target} is deployed already on {history.host}: name the key to rotate to with --to")
    final = final_header(header, target, backups)
    bridge = _bridge(history, header, target, backups)
    max_age = _max_age(header, max_max_age)
    policies = held(history, now, max_max_age=max_max_age)
    steps: list[Step] = []
    if not set(bridge.pins) <= set(header.pins):
        steps.append(_publish(now, bridge))
        policies = tuple(replace(each, last_at=each.last_at or now) for each in policies)
    if _lacks_list(history, bridge if steps else header):
        steps.append(_sign(now))
    deploy_at = _ready_at(policies, target, now)
    steps.append(_deploy(deploy_at, target, locked_out(policies, (target,))))
    steps.append(_retire(deploy_at + max_age, final))
    if header.recovery is not None:
        steps.append(_sign(deploy_at + max_age))
    return tuple(steps)


def final_header(header: PublicKeyPins, target: Pin, backups: Sequence[Pin]) -> PublicKeyPins:
    """The header at the end of a rotation: the new key, and its Backup Pins.

    Raises:
        ValueError: if no backup is left besides the target (§4.3).
    """
    kept = [pin for pin in backups if pin != target]
    if not kept:
        raise ValueError(
            "after this rotation there is no Backup Pin: make a new backup first (dynpin keys new), and name its "
            "public half with --backup"
        )
    return replace(header, pins=(target, *kept))


def bridge_header(history: History, rotation: Planned) -> PublicKeyPins:
    """The header until the old pin is retired: it has the old key, the new one and the backups.

    Raises:
        ValueError: if no header is recorded.
    """
    header = history.header
    if header is None:
        raise ValueError(f"no header of {history.host} is recorded")
    return _bridge(history, header, rotation.target, rotation.backups)


def old_pins(history: History) -> tuple[Pin, ...]:
    """The pins in the present header that a finished rotation no longer needs: keys that were deployed before."""
    header, rotation = history.header, history.rotation
    if header is None or rotation is None:
        return ()
    once = {pin for event in history.events if isinstance(event, Deployed) for pin in event.chain}
    return tuple(pin for pin in header.pins if pin in once.difference(history.chain, rotation.backups))


def _bridge(history: History, header: PublicKeyPins, target: Pin, backups: Sequence[Pin]) -> PublicKeyPins:
    """The header between the old key and the new: the deployed key, the next one, and the backups."""
    deployed = [pin for pin in header.pins if pin in history.chain] or history.chain[:1]
    return replace(header, pins=(*deployed, target, *backups))


def _next(
    history: History, policies: tuple[Held, ...], now: float, max_max_age: int | None
) -> tuple[Stage, Step | None]:
    header, rotation, deployment = history.header, history.rotation, history.deployment
    if header is None or not header.max_age:
        return Stage.UNPINNED, None
    if rotation is None:
        return Stage.STEADY, None
    target = rotation.target
    if target not in history.chain:
        bridge = _bridge(history, header, target, rotation.backups)
        if not set(bridge.pins) <= set(header.pins):
            return Stage.PUBLISH, _publish(now, bridge)
        if _lacks_list(history, header):
            return Stage.SIGN, _sign(now)
        refused = locked_out(policies, (target,))
        step = _deploy(_ready_at(policies, target, now), target, refused)
        return (Stage.SPREADING if refused else Stage.DEPLOY), step
    final = final_header(header, target, rotation.backups)
    if deployment is None or not old_pins(history):
        return (Stage.SIGN, _sign(now)) if _lacks_list(history, header) else (Stage.STEADY, None)
    since = _deployed_since(history, target)
    ready_at = since + _max_age(header, max_max_age)
    return (Stage.SETTLING if ready_at > now else Stage.RETIRE), _retire(max(now, ready_at), final)


def _deployed_since(history: History, target: Pin) -> float:
    """Since when the target has been deployed without interruption."""
    since = 0.0
    for event in reversed([event for event in history.events if isinstance(event, Deployed)]):
        if target not in event.chain:
            break
        since = event.at
    return since


def _max_age(header: PublicKeyPins, max_max_age: int | None) -> int:
    max_age = header.max_age or 0
    return max_age if max_max_age is None else min(max_age, max_max_age)


def _publish(at: float, header: PublicKeyPins) -> Step:
    return Step(
        "publish",
        at,
        "Send this header on every response, from every node.",
        "Clients must know the new key before they meet it.",
        header,
    )


def _lacks_list(history: History, header: PublicKeyPins) -> bool:
    """Whether the site has a signed list that was not seen with the pins of this header."""
    listed = history.listed
    return header.recovery is not None and (listed is None or set(listed.pins) != set(header.pins))


def _sign(at: float) -> Step:
    return Step(
        "sign",
        at,
        "Sign the list with the pins of this header: dynpin recovery sign dynpin.toml, then dynpin recovery publish "
        "FOLDER.",
        "A client that was refused once uses the list instead of the header. It refuses a key that is not in the list, "
        "and accepts a retired key that is still in it.",
    )


def _deploy(at: float, target: Pin, refused: Sequence[Held]) -> Step:
    what = f"Deploy the key {target} with its certificate, on every node."
    if refused:
        last = max(refused, key=lambda policy: policy.until)
        if last.node and last.last_at is None:
            name = last.node
            return Step("deploy", at, what, f"Node {name} sends a header without this key: {last.header}", key=target)
        why = (
            f"Until then clients may hold a policy without this key: the last response that carried it was sent at "
            f"{rfc3339(last.until - (last.header.max_age or 0))}, with max-age={last.header.max_age}."
        )
    else:
        why = "Every policy that a client may hold names this key."
    return Step("deploy", at, what, why, key=target)


def _retire(at: float, header: PublicKeyPins) -> Step:
    return Step(
        "retire",
        at,
        "Send this header, without the old pin; then destroy the old key.",
        "Wait one max-age after the deployment: if the new key fails, you can still go back to the old one.",
        header,
    )
