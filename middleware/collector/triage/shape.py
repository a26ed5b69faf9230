"""The shape of a diagnosis as JSON, as it is stored and shown."""

from __future__ import annotations

from typing import TypedDict, cast

from ..stored_json import kept
from .verdicts import SEVERITIES

__all__ = ["CertificateShown", "DiagnosisShown", "shown"]

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
    """A diagnosis as it is kept (:meth:`.Diagnosis.to_dict`).

    None where there is none, or one of another form: of another version, and judged anew soon, or damaged.
    """
    found = kept(diagnosis)
    if not _has(found, DiagnosisShown.__required_keys__):
        return None
    told = cast("dict[str, object]", found)
    is_complete = all(
        isinstance(told[part], list) and all(_has(one, names) for one in cast("list[object]", told[part]))
        for part, names in _PARTS.items()
    )
    return cast("DiagnosisShown", told) if is_complete and told["severity"] in SEVERITIES else None


def _has(value: object, names: frozenset[str]) -> bool:
    return isinstance(value, dict) and names <= value.keys()
