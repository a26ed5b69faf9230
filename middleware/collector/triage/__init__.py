"""Triage: what a violation report means. Values in, a diagnosis out; no storage and no network."""

from .certificates import Decoded, Roots, decode, is_issued_by, names_cover
from .rules import Case, Diagnosis, diagnose
from .shape import CertificateShown, DiagnosisShown, shown
from .verdicts import SEVERITIES, VERDICTS, Severity, Verdict

__all__ = [
    "SEVERITIES",
    "VERDICTS",
    "Case",
    "CertificateShown",
    "Decoded",
    "Diagnosis",
    "DiagnosisShown",
    "Roots",
    "Severity",
    "Verdict",
    "decode",
    "diagnose",
    "is_issued_by",
    "names_cover",
    "shown",
]
