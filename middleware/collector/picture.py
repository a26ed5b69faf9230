"""The chain as a picture: served beside validated, level by level from the root down to the leaf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, cast

from dynpin.middleware.collector.reading import kept
from dynpin.middleware.collector.verdicts import SEVERITIES

__all__ = ["Card", "CertificateShown", "DiagnosisShown", "Level", "picture", "shown"]

CertificateShown = TypedDict(
    "CertificateShown",
    {
        "subject": str,
        "issuer": str,
        "serial": str,
        "names": list[str],
        "not-before": str | None,
        "not-after": str | None,
        "key": str,
        "pin": str | None,
        "matches": bool,
        "own-key": str | None,
        "is-ca": bool,
        "self-issued": bool,
        "signed-by-next": bool | None,
        "fingerprint": str,
        "fault": str,
    },
)


class KnownPinShown(TypedDict):
    """A known pin, and whose key it is where that is known."""

    pin: str
    key: str | None


DiagnosisShown = TypedDict(
    "DiagnosisShown",
    {
        "verdict": str,
        "title": str,
        "severity": str,
        "summary": str,
        "advice": str,
        "reasons": list[str],
        "notes": list[str],
        "failing": int | None,
        "root": str,
        "known-pins": list[KnownPinShown],
        "served": list[CertificateShown],
        "validated": list[CertificateShown],
    },
)


_PARTS = {
    "served": CertificateShown.__required_keys__,
    "validated": CertificateShown.__required_keys__,
    "known-pins": KnownPinShown.__required_keys__,
}


def shown(diagnosis: str | None) -> DiagnosisShown | None:
    """A diagnosis as it is kept (:meth:`dynpin.middleware.collector.triage.Diagnosis.to_dict`).

    None where there is none, or one of another form: of another version, and judged anew soon, or damaged.
    """
    found = kept(diagnosis)
    if not _has(found, DiagnosisShown.__required_keys__):
        return None
    told = cast("dict[str, object]", found)
    is_whole = all(
        isinstance(told[part], list) and all(_has(one, names) for one in cast("list[object]", told[part]))
        for part, names in _PARTS.items()
    )
    return cast("DiagnosisShown", told) if is_whole and told["severity"] in SEVERITIES else None


def _has(value: object, names: frozenset[str]) -> bool:
    return isinstance(value, dict) and names <= value.keys()


@dataclass(frozen=True, slots=True)
class Card:
    """One certificate as it is drawn.

    Attributes:
        certificate: what is known of it.
        role: leaf, intermediate or root.
        is_failing: the one to look at first.
        is_shared: the same certificate stands at the same level in the other chain.
        in_other: its key stands somewhere in the other chain.
        link: how it is joined to the one above: "signed", "broken", "unknown", or "" at the top.
    """

    certificate: CertificateShown
    role: str
    is_failing: bool
    is_shared: bool
    in_other: bool
    link: str


@dataclass(frozen=True, slots=True)
class Level:
    """One row of the picture."""

    number: int
    served: Card | None
    validated: Card | None


def picture(diagnosis: DiagnosisShown) -> list[Level]:
    """The rows, the leaf last, so that the root stands above what it signed."""
    served, validated = diagnosis["served"], diagnosis["validated"]
    levels = [
        Level(
            number,
            _card(served, validated, number, None),
            _card(validated, served, number, diagnosis["failing"]),
        )
        for number in range(max(len(served), len(validated)))
    ]
    return levels[::-1]


def _card(
    chain: list[CertificateShown], other: list[CertificateShown], number: int, failing: int | None
) -> Card | None:
    if number >= len(chain):
        return None
    one = chain[number]
    signed = one["signed-by-next"]
    last = number == len(chain) - 1
    return Card(
        certificate=one,
        role="leaf" if number == 0 else "root" if one["self-issued"] else "intermediate",
        is_failing=failing == number,
        is_shared=number < len(other)
        and bool(one["fingerprint"])
        and one["fingerprint"] == other[number]["fingerprint"],
        in_other=one["pin"] is not None and any(one["pin"] == another["pin"] for another in other),
        link="" if last else {True: "signed", False: "broken", None: "unknown"}[signed],
    )
