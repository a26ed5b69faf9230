"""What the tests of the header share."""

from __future__ import annotations

from dataclasses import fields

import pytest

from dynpin import InvalidHeader, Pin, PublicKeyPins
from dynpin.recovery import Recovery

ONE, TWO = (Pin(bytes([number]) * 32) for number in (1, 2))


PINS = f'pin-sha256="{ONE}"; pin-sha256="{TWO}"'


# A header with every directive. Give a new directive a value here: test_every_directive.py follows it everywhere.
FULL = PublicKeyPins(
    *((ONE, TWO), 3600, True, "https://reports.test/"), recovery=Recovery(bytes(32), "https://recovery.test/")
)
# The fields of PublicKeyPins with the value of a directive, except the pins.
DIRECTIVES = [
    field.name
    for field in fields(PublicKeyPins)
    if field.compare and field.name not in ("pins", "other_pins", "report_only")
]


def refused(value: str, *, report_only: bool = False) -> InvalidHeader:
    with pytest.raises(InvalidHeader) as caught:
        PublicKeyPins.parse(value, report_only=report_only)
    return caught.value


def accepted(value: str, *, report_only: bool = False) -> PublicKeyPins:
    """The parsed value, once it is sure that its canonical text says the same."""
    header = PublicKeyPins.parse(value, report_only=report_only)
    assert PublicKeyPins.parse(str(header), report_only=report_only) == header
    return header
