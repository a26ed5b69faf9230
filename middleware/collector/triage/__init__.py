"""Triage: find out what a violation report means. Values in, a diagnosis out; no storage, no network."""

from .certificates import Decoded, decode, names_cover
from .diagnosis import Certificate, Diagnosis, KnownPin, RootKind, Time
from .judging import Judge, Question, Settings, unjudged
from .roots import Roots
from .rules import Case, diagnose
from .signatures import Signatures
from .verdicts import SEVERITIES, VERDICTS, Severity, Verdict, VerdictName

__all__ = [
    "SEVERITIES",
    "VERDICTS",
    "Case",
    "Certificate",
    "Decoded",
    "Diagnosis",
    "Judge",
    "KnownPin",
    "Question",
    "RootKind",
    "Roots",
    "Settings",
    "Severity",
    "Signatures",
    "Time",
    "Verdict",
    "VerdictName",
    "decode",
    "diagnose",
    "names_cover",
    "unjudged",
]
