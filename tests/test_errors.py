"""Every exception of the package is what it resembles, and says all that it knows."""

from __future__ import annotations

import copy
import pickle
import ssl

import pytest

import dynpin
from dynpin import (
    DynpinError,
    InvalidHeader,
    InvalidHost,
    InvalidPinFile,
    InvalidReport,
    PinValidationError,
    PolicyError,
    RecoveryError,
    Report,
    StoreError,
    UnenforceableContext,
    UnpinnableKey,
)
from dynpin.errors import without_codes
from dynpin.validation import validate

ERRORS: list[tuple[DynpinError, type[Exception], str]] = [
    (UnpinnableKey("no pin"), ValueError, "no pin"),
    (InvalidHost("no host"), ValueError, "no host"),
    (InvalidHeader("syntax", "',' there", 9), ValueError, "',' there (syntax, at character 9)"),
    (InvalidPinFile("line 3"), ValueError, "line 3"),
    (InvalidReport("not-json", "no JSON"), ValueError, "no JSON (not-json)"),
    (PolicyError("no backup"), ValueError, "no backup"),
    (RecoveryError("no list"), ValueError, "no list"),
    (StoreError("no store"), OSError, "no store"),
    (UnenforceableContext("no context"), TypeError, "no context"),
    (PinValidationError("no pin shown"), ssl.SSLCertVerificationError, "no pin shown"),
]


@pytest.mark.parametrize(("error", "builtin", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_the_builtin_that_it_resembles(error: DynpinError, builtin: type[Exception], text: str) -> None:
    assert isinstance(error, builtin)
    assert str(error) == text
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == text
        assert vars(twin) == vars(error)
    how = error.__reduce__()
    assert isinstance(how, tuple)
    assert vars(how[0](*how[1])) == vars(error)


def test_a_violation_takes_its_report_and_its_decision_along() -> None:
    report = Report("bank.test", 443, "bank.test", False, 0.0, None, (), (), ())
    error = PinValidationError("no pin", validation=validate("bank.test", None, ()), report=report)
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.validation, twin.report) == (error.validation, report)


def test_the_lines_of_a_violation_are_legible_inside_of_another_error() -> None:
    """urllib3 and requests show the repr of the error or of its arguments, brackets and all."""
    assert repr(PinValidationError("one line").args) == "(1, one line)"
    assert repr(PinValidationError("a line\n  the command").args) == "(1, a line\n  the command\n)"


def test_every_public_error_stands_in_the_table() -> None:
    public = {getattr(dynpin, name) for name in dynpin.__all__}
    errors = {value for value in public if isinstance(value, type) and issubclass(value, DynpinError)}
    assert errors == {type(error) for error, _, _ in ERRORS} | {DynpinError}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1016)",
            "certificate verify failed: self-signed certificate",
        ),
        ("[SSL] unknown error (_ssl.c:2580)", "unknown error"),
        ("[Errno 111] Connection refused", "Connection refused"),
        ("[Errno -2] Name or service not known", "Name or service not known"),
        ("[::1] is not reached", "[::1] is not reached"),
        ("no code here (_ssl.c:)", "no code here (_ssl.c:)"),
        ("", ""),
    ],
)
def test_the_words_of_an_error_without_its_codes(text: str, words: str) -> None:
    assert without_codes(text) == words
