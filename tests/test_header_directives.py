"""RFC 7469 §2.1.1 to §2.1.4: the directives of the header fields, one by one."""

from __future__ import annotations

import pytest

from dynpin import InvalidHeader, Pin, PublicKeyPins
from dynpin.header import MAX_MAX_AGE, MAX_PINS

from .headers import ONE, PINS, TWO, accepted, refused

# -- §2.1.1 The Pin Directive -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directive", "code", "offset"),
    [
        ("pin-sha256", "pin-invalid", 0),
        ("pin-sha512", "pin-invalid", 0),
        ("pin-sha256=abc", "pin-unquoted", 11),
        ("pin-sha512=abc", "pin-unquoted", 11),
        ('pin-sha256=""', "pin-invalid", 11),
        ('pin-sha256="abc"', "pin-invalid", 11),
        (f'pin-sha256="{str(ONE)[:-1]}"', "pin-invalid", 11),
        (f'pin-sha256="{ONE}="', "pin-invalid", 11),
        (f'pin-sha256=" {ONE}"', "pin-invalid", 11),
        (f'pin-sha256="sha256/{ONE}"', "pin-invalid", 11),
        ('pin-sha256="' + "__-_" * 10 + '___="', "pin-invalid", 11),
        (f'pin-sha256="{bytes(32).hex()}"', "pin-invalid", 11),
    ],
)
def test_a_pin_is_quoted_base64_of_32_bytes(directive: str, code: str, offset: int) -> None:
    error = refused(f"max-age=3; {directive}; {PINS}")
    assert (error.code, error.position) == (code, 11 + offset)


def test_pins_of_unknown_algorithms_are_kept_and_written_back() -> None:
    header = accepted(f'{PINS}; pin-sha1="s5Lk"; PIN-Sha512="\\"\\\\"; pin-sha1="s5Lk"; max-age=3')
    assert header.pins == (ONE, TWO)
    assert header.other_pins == (("sha1", "s5Lk"), ("sha512", '"\\'))
    assert str(header) == f'{PINS}; pin-sha1="s5Lk"; pin-sha512="\\"\\\\"; max-age=3'
    assert not header.names_only_unknown_algorithms


@pytest.mark.parametrize(
    ("value", "only"),
    [('pin-sha1="a"; max-age=3', True), ("max-age=3", False), (f'pin-sha256="{ONE}"; pin-sha1="a"; max-age=3', False)],
)
def test_only_unknown_algorithms_differs_from_no_pin_at_all(value: str, *, only: bool) -> None:
    assert accepted(value).names_only_unknown_algorithms is only


def test_the_limit_of_pins_counts_distinct_ones() -> None:
    texts = [f'pin-sha256="{Pin(bytes([number]) * 32)}"' for number in range(MAX_PINS)]
    value = ";".join([*texts, *texts, "max-age=3"])
    assert len(accepted(value).pins) == MAX_PINS
    for one_more in (f'pin-sha256="{Pin(bytes([MAX_PINS]) * 32)}"', 'pin-sha1="a"'):
        error = refused(f"{value};{one_more};max-age=3")
        assert (error.code, error.position) == ("too-many-pins", len(value) + 1)


# -- §2.1.2 The max-age Directive -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("3", 3),
        ('"3"', 3),
        ('"\\3\\0"', 30),
        ("00000000000000000000000000003", 3),
        (str(MAX_MAX_AGE - 1), MAX_MAX_AGE - 1),
        (str(MAX_MAX_AGE), MAX_MAX_AGE),
        (str(MAX_MAX_AGE + 1), MAX_MAX_AGE),
        ("9" * 5000, MAX_MAX_AGE),
        ("0" * 5000, 0),
    ],
)
def test_max_age_is_seconds_and_never_overflows(text: str, seconds: int) -> None:
    assert accepted(f"max-age={text}").max_age == seconds


@pytest.mark.parametrize("text", ["-1", "+3", "3.0", "1e3", "0x10", "3_000", '""', '"3 "', '" 3"', "'3'", "3s", '"٣"'])
def test_max_age_is_nothing_but_digits(text: str) -> None:
    error = refused(f"foo; max-age={text}")
    assert error.code == ("syntax" if text == '"٣"' else "max-age-invalid")
    assert error.position == (14 if text == '"٣"' else 13)


def test_max_age_is_required_and_has_a_value() -> None:
    assert (refused(PINS).code, refused(PINS).position) == ("max-age-missing", 0)
    assert (refused(f"{PINS}; max-age").code, refused(f"{PINS}; max-age").position) == (
        "max-age-invalid",
        2 + len(PINS),
    )
    # Of several faults the one that stands first, and what is missing last.
    assert refused("includeSubDomains=1; pin-sha256; foo; foo").code == "value-unexpected"


def test_max_age_is_not_even_read_in_report_only() -> None:
    assert PublicKeyPins.parse("max-age=3").max_age == 3
    for directive in ("", "; max-age=3", "; max-age=soon", "; max-age"):
        header = accepted(PINS + directive, report_only=True)
        assert header == PublicKeyPins((ONE, TWO), report_only=True)
        assert header.max_age is None
    assert refused(f"{PINS}; max-age=3; max-age=3", report_only=True).code == "directive-repeated"


# -- §2.1.3 The includeSubDomains Directive ---------------------------------------------------------------------------


def test_include_subdomains_is_valueless() -> None:
    assert accepted("max-age=3; includeSubDomains").include_subdomains
    assert not accepted("max-age=3; includeSubDomain").include_subdomains
    for value in ("=true", '=""', '="1"'):
        error = refused(f"max-age=3; includeSubDomains{value}")
        assert (error.code, error.position) == ("value-unexpected", 29)


# -- §2.1.4 The report-uri Directive ----------------------------------------------------------------------------------


REPORT_URIS = [
    "https://r.example/",
    "http://r.example",
    "HTTPS://R.EXAMPLE/Path",
    "https://r.example:8443/a;b?c=d&e=%20,f#g",
    "https://[2001:db8::1]:1/r",
    "https://192.0.2.7/r",
    "https://user:secret@r.example/!$&'()*+,;=:@~._-",
]


NOT_REPORT_URIS = [
    "",
    "/pkp",
    "//r.example/",
    "r.example/pkp",
    "https:",
    "https:///pkp",
    "https://:443/",
    "https://r.example:0/",
    "https://r.example:65536/",
    "https://r.example:port/",
    "https://[2001:db8::1/",
    "ftp://r.example/",
    "javascript:alert(1)",
    "mailto:x@r.example",
    "https://r.example/a b",
    " https://r.example/",
    "https://r.example/\t",
    "https://r.example/\u00fc",
    'https://r.example/"',
    "https://r.example/<>",
    "https://r.example/\\",
]


@pytest.mark.parametrize("uri", REPORT_URIS)
def test_a_report_uri_is_absolute(uri: str) -> None:
    assert accepted(f'max-age=3; report-uri="{uri}"').report_uri == uri


@pytest.mark.parametrize("uri", NOT_REPORT_URIS)
def test_what_is_no_report_uri(uri: str) -> None:
    quoted = uri.replace("\\", "\\\\").replace('"', '\\"')
    error = refused(f'max-age=3; report-uri="{quoted}"')
    assert (error.code, error.position) == ("report-uri-invalid", 22)
    with pytest.raises(InvalidHeader):
        PublicKeyPins((), 3, report_uri=uri)


def test_a_report_uri_needs_a_value() -> None:
    assert (refused("max-age=3; report-uri").code, refused("max-age=3; report-uri").position) == (
        "report-uri-invalid",
        11,
    )


def test_what_is_built_has_the_limit_of_what_is_read() -> None:
    pins = tuple(Pin(bytes([number]) * 32) for number in range(MAX_PINS))
    assert PublicKeyPins(pins, 60).pins == pins
    with pytest.raises(InvalidHeader, match=f"{MAX_PINS + 1} pins") as caught:
        PublicKeyPins(pins, 60, other_pins=(("sha1", "x"),))
    assert caught.value.code == "too-many-pins"
