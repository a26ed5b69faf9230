"""Triage: what a violation report means. Values in, a diagnosis out; no storage and no network."""

from .certificates import Decoded, decode, names_cover
from .judging import Judge, Judgement, Question, Settings, unjudged
from .roots import Roots
from .rules import Case, Diagnosis, diagnose
from .shape import CertificateShown, DiagnosisShown, shown
from .signatures import Signatures
from .verdicts import SEVERITIES, VERDICTS, Severity, Verdict

__all__ = [
    "SEVERITIES",
    "VERDICTS",
    "Case",
    "CertificateShown",
    "Decoded",
    "Diagnosis",
    "DiagnosisShown",
    "Judge",
    "Judgement",
    "Question",
    "Roots",
    "Settings",
    "Severity",
    "Signatures",
    "Verdict",
    "decode",
    "diagnose",
    "names_cover",
    "shown",
    "unjudged",
]
