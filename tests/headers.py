"""What the tests of the header share."""

from __future__ import annotations

import pytest

from dynpin import InvalidHeader, Pin, PublicKeyPins

ONE, TWO = (Pin(bytes([number]) * 32) for number in (1, 2))


PINS = f'pin-sha256="{ONE}"; pin-sha256="{TWO}"'


def refused(value: str, *, report_only: bool = False) -> InvalidHeader:
    with pytest.raises(InvalidHeader) as caught:
        PublicKeyPins.parse(value, report_only=report_only)
    return caught.value


def accepted(value: str, *, report_only: bool = False) -> PublicKeyPins:
    """The parsed value, once it is sure that its canonical text says the same."""
    header = PublicKeyPins.parse(value, report_only=report_only)
    assert PublicKeyPins.parse(str(header), report_only=report_only) == header
    return header
