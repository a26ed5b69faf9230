"""The two chains of a report side by side, served and validated, from the root down to the leaf."""

from __future__ import annotations

from dataclasses import dataclass

from ..triage import Certificate, Diagnosis

__all__ = ["Card", "Level", "chain_levels"]


@dataclass(frozen=True, slots=True)
class Card:
    """One certificate of the picture.

    Attributes:
        certificate: the certificate's data.
        role: leaf, intermediate or root.
        is_failing: the reader should look at it first.
        is_shared: the other chain has the same certificate at the same level.
        in_other: the other chain has its key at some level.
        link: the signature by the certificate above: "signed", "broken", "unknown", or "" at the top.
    """

    certificate: Certificate
    role: str
    is_failing: bool
    is_shared: bool
    in_other: bool
    link: str


@dataclass(frozen=True, slots=True)
class Level:
    """One row of the two chains."""

    number: int
    served: Card | None
    validated: Card | None


def chain_levels(diagnosis: Diagnosis) -> list[Level]:
    """The rows, from the root to the leaf, so that each certificate is below its issuer."""
    served, validated = diagnosis.served, diagnosis.validated
    levels = [
        Level(
            number,
            _card(served, validated, number, None),
            _card(validated, served, number, diagnosis.failing),
        )
        for number in range(max(len(served), len(validated)))
    ]
    return levels[::-1]


def _card(chain: list[Certificate], other: list[Certificate], number: int, failing: int | None) -> Card | None:
    if number >= len(chain):
        return None
    one = chain[number]
    signed = one.signed_by_next
    last = number == len(chain) - 1
    return Card(
        certificate=one,
        role="leaf" if number == 0 else "root" if one.self_issued else "intermediate",
        is_failing=failing == number,
        is_shared=number < len(other) and bool(one.fingerprint) and one.fingerprint == other[number].fingerprint,
        in_other=one.pin is not None and any(one.pin == another.pin for another in other),
        link="" if last else {True: "signed", False: "broken", None: "unknown"}[signed],
    )
