"""The pins of all certificates that the cryptography project tests with, beside those that openssl finds."""

from __future__ import annotations

from ..test_pin_files import assert_openssl_finds_the_same_pin, certificate_files


def test_openssl_finds_the_same_pin_in_every_certificate_that_it_loads() -> None:
    assert_openssl_finds_the_same_pin(certificate_files(), at_least=500)
