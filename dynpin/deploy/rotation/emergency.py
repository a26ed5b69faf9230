"""The steps for an emergency: a key is stolen or lost, or its CA is no longer trusted (RFC 7469 §4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from dynpin.pins import Pin
from dynpin.report import rfc3339

from .history import Held, History
from .machine import Step, held, locked_out

__all__ = ["EMERGENCIES", "Emergency", "emergency"]

Emergency = Literal["key-compromised", "key-lost", "ca-distrusted"]
EMERGENCIES: tuple[Emergency, ...] = get_args(Emergency)


def emergency(
    kind: Emergency, history: History, keys: Sequence[Pin], now: float, *, max_max_age: int | None = None
) -> tuple[Step, ...]:
    """The steps out of an emergency for the deployed key of `history`, in their order.

    Args:
        kind: what happened to the deployed key, or to the CA that signed it.
        history: what was served.
        keys: the pins of the available private keys that are still secret.
        now: seconds since the epoch, UTC.
        max_max_age: the cap on max-age of all clients, if it is known.
    """
    policies = held(history, now, max_max_age=max_max_age)
    broken = history.chain[:1]
    if kind == "ca-distrusted":
        keys = (*broken, *keys)  # the key itself is not affected, and is on the server
    usable = [key for key in dict.fromkeys(keys) if kind == "ca-distrusted" or key not in broken]
    # Choose the key that the fewest clients refuse, and for the shortest time.
    usable.sort(key=lambda key: max((policy.until for policy in locked_out(policies, (key,))), default=now))
    if not usable or len(locked_out(policies, usable[:1])) == len(policies) > 0:
        return _nothing_left(kind, history, policies, now)
    target, spare = usable[0], usable[1:]
    steps = [_deploy(kind, target, locked_out(policies, (target,)), now)]
    if target in broken:
        return (*steps, _leave_as_it_is(now))
    steps.append(_announce(history, target, spare, now))
    if _has_list(history):
        steps.append(_sign(kind, broken, now))
    if kind == "key-compromised":
        trusting = [policy for policy in policies if not set(broken).isdisjoint(policy.header.pins)]
        last = max((policy.until for policy in trusting), default=now)
        steps.append(
            Step(
                "revoke",
                now,
                "Have every certificate of the stolen key revoked.",
                f"Until {rfc3339(last)} a client that has not come back still accepts the stolen key, unless its "
                "certificate is revoked.",
            )
        )
    if not spare:
        steps.append(
            Step(
                "replenish",
                now,
                "Make a new backup key (dynpin keys new), publish it, and pin again.",
                "The backup is used up: the next accident would lock everybody out.",
            )
        )
    return tuple(steps)


def _has_list(history: History) -> bool:
    return history.header is not None and history.header.recovery is not None


def _sign(kind: Emergency, broken: Sequence[Pin], now: float) -> Step:
    stolen = f", and not {broken[0]}" if kind == "key-compromised" and broken else ""
    return Step(
        "sign",
        now,
        f"Name in dynpin.toml the key that is deployed now and a new backup{stolen}. Then: dynpin recovery sign "
        "dynpin.toml, and dynpin recovery publish FOLDER.",
        "Clients that refuse the new key look at the list, and take its pins within a minute of their next attempt."
        + (" One that has taken an earlier list accepts the stolen key until then." if stolen else ""),
    )


def _deploy(kind: Emergency, target: Pin, refused: Sequence[Held], now: float) -> Step:
    if refused:
        last = max(policy.until for policy in refused)
        which = "An older policy does" if len(refused) == 1 else f"{len(refused)} older policies do"
        why = f"{which} not name it: clients with such a policy are locked out until {rfc3339(last)}."
    else:
        why = "Every policy that a client may hold names it: nobody is locked out."
    source = "from another CA" if kind == "ca-distrusted" else "from your CA"
    return Step("deploy", now, f"Deploy the key {target} now, with a certificate {source}.", why, key=target)


def _leave_as_it_is(now: float) -> Step:
    return Step(
        "keep",
        now,
        "Send the same header as before, but for pins of that CA's own keys, if there are any.",
        "Clients know this key; only its certificate is new.",
    )


def _announce(history: History, target: Pin, spare: Sequence[Pin], now: float) -> Step:
    header = history.header
    if spare and header is not None:
        return Step(
            "publish",
            now,
            "From the same moment on send this header.",
            "It replaces what clients hold at their next visit.",
            replace(header, pins=(target, *spare), other_pins=(), report_only=False),
        )
    return Step(
        "silence",
        now,
        'From the same moment on send no header: give the middleware on_invalid="silence" as well as "dynpin.toml", '
        "and start the app again.",
        "Without a Backup Pin clients ignore a header; what they have noted still holds.",
    )


def _nothing_left(kind: Emergency, history: History, policies: Sequence[Held], now: float) -> tuple[Step, ...]:
    last = max((policy.until for policy in policies), default=now)
    until = rfc3339(last)
    signs = _has_list(history)
    steps = [
        Step(
            "search",
            now,
            "Look for every private key that was ever pinned: on old servers, and where backups are kept. Name each in "
            "--key.",
            f"No key that you named is in the policies that clients hold, and nothing that a server sends can change "
            f"what they hold until {until}.",
        )
    ]
    if signs:
        steps += [
            Step(
                "deploy-new",
                now,
                "Deploy a new key. A new backup key comes from dynpin keys new.",
                "Clients refuse it, and then look at the signed list of the root that they have noted.",
            ),
            _sign(kind, history.chain[:1], now),
            Step(
                "pin-again",
                now,
                "Let the server send the new header. If dynpin.toml names a file in remember, remove that file. If it "
                "has [site] state, remove that line on every node, until the time that `dynpin nodes list` shows as "
                "held until. Then restart the server.",
                "Before that the server sends no header, since it has never sent a pin of this key. Clients that have "
                "taken the list hold these pins already; new clients need the header.",
            ),
        ]
    elif kind == "key-compromised":
        steps.append(
            Step(
                "choose",
                now,
                "Choose: keep the stolen key until then, or deploy a new one and be unreachable for known clients.",
                "With the stolen key the thief reads every connection; with a new one returning clients are refused "
                f"until {until}. There is no third way. If you keep it, unpin first: send max-age=0 with the pins.",
            )
        )
    if not signs:
        steps.append(
            Step(
                "silence",
                now,
                "Deploy a new key, and send no header.",
                "New clients can connect at once. Another header now would make later steps harder to plan.",
            )
        )
    steps += [
        Step(
            "tell",
            now,
            f"Tell the users who are refused: dynpin hosts forget {history.host}",
            f"Before {until} it is the only way in{', apart from the signed list' if signs else ''}.",
        ),
    ]
    if not signs:
        again = Step("recover", last, "Pin again, with two backup keys.", "From then on no client holds an old policy.")
        steps.append(again)
    return tuple(steps)
