"""The guard and the signed list: a client that was refused once uses the list, and no longer the header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host
from dynpin.pins import Pin

from .guard import Reason, Verdict

if TYPE_CHECKING:
    from .recovery import PublishedList  # imports python-tuf

__all__ = ["held_against_list"]

_SIGN = "dynpin recovery sign dynpin.toml, then dynpin recovery publish FOLDER"


def held_against_list(
    verdict: Verdict, listed: PublishedList, hosts: Sequence[str], header: PublicKeyPins, chain: Sequence[Pin]
) -> Verdict:
    """The verdict on a chain, with the faults that the published list adds.

    Args:
        verdict: the verdict without the list.
        listed: the list, as a client reads it.
        hosts: the names of the site.
        header: the header that the site sends.
        chain: the pins of the new chain, leaf first.
    """
    from .recovery import list_faults  # noqa: PLC0415 - python-tuf, for those who have a list

    if listed.pins is None:
        return replace(verdict, warnings=(*verdict.warnings, *listed.problems))
    reasons, warnings = list(verdict.reasons), [*verdict.warnings, *listed.problems]
    advice = list(verdict.advice)
    for host in map(canonical_host, hosts):
        told = listed.pins.hosts.get(host)
        if told is not None and told.pins and set(told.pins).isdisjoint(chain):
            reasons.append(
                Reason(
                    "list-refuses-chain",
                    f"the signed list at {listed.place} names no key of this chain for {host}: a client that has read "
                    "the list is locked out",
                )
            )
            advice.append(f"Name the key in dynpin.toml, and sign the list: {_SIGN}. Deploy the chain after that.")
        if "*" not in host:
            warnings += list_faults(listed.pins, host, header)
    return replace(
        verdict,
        reasons=tuple(reasons),
        warnings=tuple(dict.fromkeys(warnings)),
        advice=tuple(dict.fromkeys(advice)),
        ready_at=None if len(reasons) > len(verdict.reasons) else verdict.ready_at,
    )
