"""The guard before a deployment: whether a new chain would lock clients out (RFC 7469 §2.6).

The history and the header that ``dynpin.toml`` makes tell which pins clients may hold. If these two disagree, the guard
does not rely on the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dynpin.header import PublicKeyPins
from dynpin.pins import Pin
from dynpin.report import rfc3339

from .rotation import Held, History, Published, held, locked_out, safe_at

__all__ = ["Reason", "Verdict", "guard"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a chain must not be deployed: the kind of fault, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a chain may be deployed, and what to do if not.

    Attributes:
        reasons: everything that is wrong with it; empty if nothing is.
        held: what is known about the policies that clients hold, in words.
        advice: what to do, in the order in which to try it.
        locked_out: the policies whose holders would be refused.
        ready_at: when the chain may be deployed if nothing else changes, in seconds since the epoch, UTC; None if that
            is never, as long as the present header is sent.
        warnings: faults that do not prevent the deployment.
        unseen: what could not be checked.
    """

    reasons: tuple[Reason, ...]
    held: str
    advice: tuple[str, ...]
    locked_out: tuple[Held, ...]
    ready_at: float | None
    warnings: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with the chain."""
        return not self.reasons

    @property
    def reason(self) -> str:
        """The first reason; if there is none, what clients hold."""
        return self.reasons[0].message if self.reasons else self.held


def guard(
    history: History,
    chain: Sequence[Pin],
    now: float,
    *,
    max_max_age: int | None = None,
    makes: PublicKeyPins | None = None,
) -> Verdict:
    """Compare the pins of a new chain with every policy that clients may hold.

    Args:
        history: what the host has served so far.
        chain: the pins of the new chain, leaf first.
        now: seconds since the epoch, UTC.
        max_max_age: the cap on max-age of all clients in seconds, if it is known.
        makes: the header that ``dynpin.toml`` makes now, if there is one. It counts as sent now. If the last header of
            the history has pins that it does not have, that header was perhaps never sent. Then every header of the
            history counts as sent until now.
    """
    recorded = history.header
    doubted = makes is not None and recorded is not None and not set(recorded.pins) <= set(makes.pins)
    if makes is not None and makes != recorded:
        history = replace(history, events=(*history.events, Published(now, makes)))
    policies = _as_if_sent_until(now, history, max_max_age) if doubted else held(history, now, max_max_age=max_max_age)
    refused = locked_out(policies, chain)
    ready_at = safe_at(policies, chain, now)
    host = history.host
    disagreement = (
        f"the history has this published header, but dynpin.toml does not make it: {recorded}" if doubted else ""
    )
    if refused:
        target = history.rotation.target if history.rotation else None
        is_planned = makes is not None and target in chain and target not in makes.pins
        safe = [pin for pin in policies[-1].header.pins if not locked_out(policies, (pin,))]
        last = rfc3339(max(policy.until for policy in refused))
        senders = sorted({policy.node for policy in refused if policy.node and policy.last_at is None})
        still = f", and node {', '.join(senders)} still sends such a header" if senders else ""
        reasons = [
            Reason(
                "clients-locked-out",
                f"deploying this chain locks out everybody who holds the pins of {host} until {last}: "
                f"its key {chain[0]} is not among them{still}",
            )
        ]
        if doubted:
            reasons.insert(0, Reason("history-not-made", disagreement))
        advice = _advice(safe, ready_at, is_planned=is_planned, is_doubted=doubted)
        return Verdict(tuple(reasons), "", advice, refused, ready_at)
    if not policies:
        shown = f"no client holds a policy of {host}"
    else:
        shown = f"every policy that clients of {host} hold names a key of this chain"
    notes: list[str] = []
    if any(chain[0] not in policy.header.pins for policy in policies):
        notes.append("Pin the key of the leaf: this chain passes only by its issuer's key, which the CA may change.")
    warnings = (f"{disagreement}. {_RECORD}",) if doubted else ()
    return Verdict((), shown, tuple(notes), (), now, warnings)


_RECORD = (
    "Put the planned keys into dynpin.toml, and send that header. Or, if dynpin.toml was changed on purpose, record "
    "that: dynpin rotate record"
)


def _as_if_sent_until(now: float, history: History, max_max_age: int | None) -> tuple[Held, ...]:
    events = [event for event in history.events if isinstance(event, Published)]
    alone = [held(History(history.host, (event,)), now, max_max_age=max_max_age) for event in events]
    by_nodes = held(History(history.host, (), history.sent_by_nodes), now, max_max_age=max_max_age)
    return (*by_nodes, *(policy for policies in alone for policy in policies))


def _advice(safe: Sequence[Pin], ready_at: float | None, *, is_planned: bool, is_doubted: bool) -> tuple[str, ...]:
    """What to do if clients would be locked out; `safe` are the keys that all of them accept."""
    if safe:
        advice = [f"Keep serving the present chain. Deploy a key that is pinned: {', '.join(map(str, safe))}"]
    else:
        advice = ["Keep serving the present chain. No key is pinned by all clients: see dynpin rotate status"]
    if is_doubted:
        advice.append(_RECORD)
    if is_planned:
        advice.append(
            "The rotation to this key is planned, but dynpin.toml does not name the key: put it into backups, and wait "
            "until dynpin rotate next says deploy"
        )
    advice.append(
        "Renew with the same key: copy the key that the site shows over the new one in the ACME client's folder, and "
        "renew again: certbot renew --force-renewal --reuse-key; lego renew --reuse-key; acme.sh --renew --force (no "
        "--always-force-new-domain-key). Or let the CA sign the backup key's CSR: certbot certonly --csr backup.csr.pem"
    )
    if ready_at is not None:
        advice.append(f"Or wait: from {rfc3339(ready_at)} on nobody holds a policy without this key.")
    elif not is_planned:
        advice.append(
            "Or rotate to this key: dynpin rotate plan --to NEWCHAIN says which header to send first, and how long."
        )
    return tuple(advice)
