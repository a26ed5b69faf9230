"""The guard before a deployment: whether a chain would lock clients out (RFC 7469 §2.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dynpin.deploy.rotation import Held, History, held, locked_out, safe_at
from dynpin.errors import UnpinnableKey
from dynpin.pins import Pin, certificates, chain_pins
from dynpin.report import rfc3339

__all__ = ["Verdict", "chain_of_file", "guard"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a chain may be deployed, and what to do instead where it may not.

    Attributes:
        ok: whether nobody who holds a policy is locked out.
        reason: the decision in words.
        advice: what to do, in the order in which to try it.
        locked_out: the policies whose holders would be refused.
        ready_at: when the chain may be deployed if nothing else changes; None: never, while the present header is sent.
    """

    ok: bool
    reason: str
    advice: tuple[str, ...]
    locked_out: tuple[Held, ...]
    ready_at: float | None


def guard(history: History, chain: Sequence[Pin], now: float, *, max_max_age: int | None = None) -> Verdict:
    """Hold a chain that is to be deployed against every policy that clients may hold.

    Args:
        history: what the host served until now.
        chain: the pins of the new chain, leaf first.
        now: seconds since the epoch, UTC.
        max_max_age: the cap of every client, where it is known.
    """
    policies = held(history, now, max_max_age=max_max_age)
    refused = locked_out(policies, chain)
    ready_at = safe_at(policies, chain, now)
    host = history.host
    if not policies:
        return Verdict(True, f"no client holds a policy of {host}", (), (), now)
    if not refused:
        advice: tuple[str, ...] = ()
        if any(chain[0] not in policy.header.pins for policy in policies):
            advice = ("Pin the key of the leaf: this chain passes by its issuer's key alone, which the CA may change.",)
        return Verdict(True, f"every policy that clients of {host} hold names a key of this chain", advice, (), now)
    last = max(policy.until for policy in refused)
    pinned = ", ".join(str(pin) for pin in dict.fromkeys(pin for each in refused for pin in each.header.pins))
    reason = (
        f"deploying this chain locks out everybody who holds the pins of {host} until {rfc3339(last)}: "
        f"its key {chain[0]} is not among them"
    )
    advice = (
        f"Keep serving the present chain. Deploy a key that is pinned: {pinned}",
        "Renew with the same key: certbot renew --reuse-key; lego renew --reuse-key; acme.sh keeps it (no "
        "--always-force-new-domain-key). Or have the backup key's CSR signed: certbot certonly --csr backup.csr.pem",
    )
    if ready_at is None:
        wait = "Or rotate to this key: dynpin rotate plan --to NEWCHAIN says which header to send first, and how long."
    else:
        wait = f"Or wait: from {rfc3339(ready_at)} on nobody holds a policy without this key."
    return Verdict(False, reason, (*advice, wait), refused, ready_at)


def chain_of_file(path: Path) -> tuple[Pin, ...]:
    """The pins of every certificate in a PEM bundle or a DER file, in its order.

    Raises:
        UnpinnableKey: where there is no certificate in it, or the leaf's key cannot be pinned.
        OSError: where the file cannot be read.
    """
    try:
        ders = certificates(path.read_bytes())
        if not ders:
            raise UnpinnableKey(  # noqa: TRY301 - one place for all
                "there is a key in it, and no certificate: give the chain that is to be deployed, leaf first"
            )
        # The leaf must have a pin of its own, which then is the first.
        Pin.from_certificate(ders[0])
    except UnpinnableKey as error:
        raise UnpinnableKey(f"{path}: {error}") from None
    return chain_pins(ders)
