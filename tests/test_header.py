"""RFC 7469 §2.1: the grammar of the header fields and the requirements, in the order of the RFC."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import InvalidHeader, Pin, PublicKeyPins
from dynpin.header import MAX_LENGTH, MAX_MAX_AGE, MAX_PINS, Malformed, scan

from .headers import ONE, PINS, TWO, accepted, refused


class Expected(TypedDict):
    """What RFC 7469 makes of a value: the parsed policy, or the code of InvalidHeader."""

    valid: bool
    code: NotRequired[str]
    pins: NotRequired[list[str]]
    max_age: NotRequired[int | None]
    include_subdomains: NotRequired[bool]
    report_uri: NotRequired[str | None]


class Vector(TypedDict):
    """One value of vectors/header.json."""

    id: str
    header: str
    value: str
    rfc: Expected


class File(TypedDict):
    """vectors/header.json."""

    codes: dict[str, str]
    vectors: list[Vector]


FILE: File = json.loads((Path(__file__).parent / "vectors/header.json").read_text())


def read(value: str, *, report_only: bool = False) -> PublicKeyPins | InvalidHeader:
    try:
        return PublicKeyPins.parse(value, report_only=report_only)
    except InvalidHeader as error:
        return error


@pytest.mark.parametrize("vector", FILE["vectors"], ids=lambda vector: vector["id"])
def test_vector(vector: Vector) -> None:
    report_only = vector["header"] == "Public-Key-Pins-Report-Only"
    expected = vector["rfc"]
    if "code" in expected:
        error = refused(vector["value"], report_only=report_only)
        assert error.code == expected["code"]
        assert error.code in FILE["codes"]
        assert 0 <= error.position <= len(vector["value"])
        return
    header = accepted(vector["value"], report_only=report_only)
    assert header.name == vector["header"]
    assert [str(pin) for pin in header.pins] == expected.get("pins")
    assert header.max_age == expected.get("max_age")
    assert header.include_subdomains == expected.get("include_subdomains")
    assert header.report_uri == expected.get("report_uri")


# -- the grammar, figure 1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code", "position"),
    [
        ("", "empty", 0),
        (" ; \t;;", "empty", 0),
        ("=3", "syntax", 0),
        ("max-age=3;\r\n foo", "syntax", 10),
        ("max-age=3 foo", "syntax", 10),
        ("max-age=3, foo", "syntax", 9),
        ("max-age =3", "syntax", 8),
        ("max-age= 3", "syntax", 8),
        ("max-age=", "syntax", 8),
        ("max-age=;foo", "syntax", 8),
        ("max-age=3=4", "syntax", 9),
        ("max-age=٣", "syntax", 8),
        ('max-age="3"4', "syntax", 11),
        ('foo;bar="3; max-age=3', "syntax", 8),
        ('foo="3\\', "syntax", 4),
        ('foo="3\x7f"; max-age=3', "syntax", 6),
        ('foo="\u2026"; max-age=3', "syntax", 5),
        ('foo="a\\\x00"; max-age=3', "syntax", 6),
        ("max-age=3; \xa0foo", "syntax", 11),
        # The grammar comes before what the directives mean.
        ("max-age=soon; foo bar", "syntax", 18),
        ("x" * (MAX_LENGTH + 1), "too-long", MAX_LENGTH),
        ("\x00" * (MAX_LENGTH + 1), "too-long", MAX_LENGTH),
        (";" * (MAX_LENGTH + 1), "empty", 0),
    ],
)
def test_what_the_grammar_does_not_have(value: str, code: str, position: int) -> None:
    error = refused(value)
    assert (error.code, error.position) == (code, position)
    if code == "syntax" and position < len(value) and value[position] != '"':
        assert error.message.startswith(repr(value[position]))


def test_a_value_of_exactly_the_limit_is_read() -> None:
    assert (MAX_LENGTH, MAX_PINS) == (8192, 64)
    value = f"{PINS}; max-age=3; foo="
    assert accepted(value + "x" * (MAX_LENGTH - len(value))).max_age == 3
    value = 'max-age=3; report-uri="https://r.example/'
    value += "x" * (MAX_LENGTH - len(value) - 1) + '"'
    assert str(accepted(value)) == value


def test_obs_text_stands_in_a_quoted_string_alone() -> None:
    assert accepted('foo="caf\xe9 \xff"; max-age=3').max_age == 3
    assert refused("foo=caf\xe9; max-age=3").position == 7


def test_an_unclosed_quoted_string_is_named() -> None:
    assert refused('max-age=3; foo="bar').message == "a quoted-string that never ends"


# -- the requirements of §2.1, one to six -----------------------------------------------------------------------------


@given(
    st.permutations([f'pin-sha256="{ONE}"', "max-age=3", "includeSubDomains", 'report-uri="http://r.example/"', "x"])
)
def test_rule_1_order_is_not_significant(directives: list[str]) -> None:
    expected = PublicKeyPins((ONE,), 3, include_subdomains=True, report_uri="http://r.example/")
    assert accepted(";".join(directives)) == expected


@pytest.mark.parametrize(
    "twice", ["max-age=3", "includeSubDomains", 'report-uri="https://r.example/"', "foo", 'foo="bar"', "pin-"]
)
def test_rule_2_a_directive_stands_once(twice: str) -> None:
    value = f"{twice}; {PINS}; {twice.upper() if '=' not in twice else twice}; max-age=3"
    error = refused(value)
    assert (error.code, error.position) == ("directive-repeated", len(twice) + len(PINS) + 4)


def test_rule_2_except_for_pins() -> None:
    assert accepted(f'pin-sha256="{TWO}"; {PINS}; pin-sha256="{TWO}"; max-age=3').pins == (TWO, ONE)


def test_rule_3_names_are_case_insensitive() -> None:
    value = f'PIN-SHA256="{ONE}"; Max-Age=3; INCLUDEsubDOMAINS; Report-URI="https://r.example/A"; PIN-MD5="Ab"'
    expected = PublicKeyPins((ONE,), 3, True, "https://r.example/A", other_pins=(("md5", "Ab"),))
    assert accepted(value) == expected


def test_rule_5_unknown_directives_are_ignored() -> None:
    # "pin-" alone names no algorithm: an unknown directive like any other.
    assert accepted(f'{PINS}; max-age=3; foo; bar="; max-age=9"; report-to=x; pin-') == PublicKeyPins((ONE, TWO), 3)


# -- §2.1.5 Examples: vectors rfc-1 to rfc-6; §2.2.1: what a server writes --------------------------------------------


def test_the_canonical_text() -> None:
    header = PublicKeyPins((ONE, TWO, ONE), 2**40, True, "https://r.example/", other_pins=(("SHA1", 'a"'),))
    assert header.pins == (ONE, TWO)
    assert header.max_age == MAX_MAX_AGE
    assert header.other_pins == (("sha1", 'a"'),)
    assert str(header) == (
        f'{PINS}; pin-sha1="a\\""; max-age=2147483648; includeSubDomains; report-uri="https://r.example/"'
    )
    assert header.name == "Public-Key-Pins"
    assert PublicKeyPins((ONE,), 5, report_only=True).name == "Public-Key-Pins-Report-Only"
    assert str(PublicKeyPins((ONE,), 5, report_only=True)) == f'pin-sha256="{ONE}"'


def test_headers_are_values() -> None:
    header = PublicKeyPins((ONE, TWO), 3)
    assert header == PublicKeyPins((ONE, TWO), 3)
    assert header != PublicKeyPins((TWO, ONE), 3)
    assert len({header, copy.copy(header), pickle.loads(pickle.dumps(header))}) == 1


INJECTIONS = ["\r\nSet-Cookie: a=b", "\n", "\r", "\x00", "\x7f", "\u2028", "\u0100", "\ud800"]


@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_construction_refuses_what_cannot_be_written(text: str) -> None:
    with pytest.raises(InvalidHeader, match="report-uri-invalid"):
        PublicKeyPins((ONE,), 3, report_uri="https://r.example/" + text)
    with pytest.raises(InvalidHeader, match="pin-invalid"):
        PublicKeyPins((ONE,), 3, other_pins=(("sha512", text),))
    with pytest.raises(InvalidHeader, match="pin-invalid"):
        PublicKeyPins((ONE,), 3, other_pins=(("sha512" + text, ""),))


@pytest.mark.parametrize("algorithm", ["", "sha256", "SHA256", "a b", "a=", 'a"', "\xe4"])
def test_construction_refuses_algorithms_that_are_no_unknown_token(algorithm: str) -> None:
    with pytest.raises(InvalidHeader, match="pin-invalid"):
        PublicKeyPins((ONE,), 3, other_pins=((algorithm, "text"),))


def test_construction_refuses_other_faults() -> None:
    with pytest.raises(InvalidHeader, match="max-age-missing"):
        PublicKeyPins((ONE,))
    with pytest.raises(InvalidHeader, match="max-age-invalid"):
        PublicKeyPins((ONE,), -1)
    with pytest.raises(TypeError):
        PublicKeyPins((ONE,), 2.5)  # type: ignore[arg-type]  # what timedelta.total_seconds() gives
    with pytest.raises(InvalidHeader, match="too-many-pins"):
        PublicKeyPins(tuple(Pin(bytes([number]) * 32) for number in range(MAX_PINS + 1)), 3)
    with pytest.raises(InvalidHeader, match="too-long"):
        PublicKeyPins((ONE,), 3, report_uri="https://r.example/" + "x" * MAX_LENGTH)
    with pytest.raises(InvalidHeader, match="too-long"):
        PublicKeyPins((ONE,), 3, other_pins=(("sha512", '"' * (MAX_LENGTH // 2)),))


def test_a_full_value_has_no_room_for_white_space() -> None:
    pins = ";".join(f'pin-sha256="{Pin(bytes([number]) * 32)}"' for number in range(MAX_PINS))
    value = f'{pins};max-age=3;report-uri="https://r.example/'
    value += "x" * (MAX_LENGTH - len(value) - 1) + '"'
    header = accepted(value)
    assert str(header) == value


@pytest.mark.parametrize("value", ["foo", "max-age=3", "pin-"])
def test_a_report_only_field_may_say_nothing(value: str) -> None:
    header = accepted(value, report_only=True)
    assert header == PublicKeyPins((), report_only=True)
    assert str(header) == "max-age=0"


pins = st.binary(min_size=32, max_size=32).map(Pin)


tokens = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=12)


quotable = st.text(st.characters(min_codepoint=9, max_codepoint=255), max_size=30).filter(
    lambda text: re.fullmatch(r"[\t \x21-\x7e\x80-\xff]*", text) is not None
)


uris = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["http", "https", "HTTPS"]),
    st.sampled_from(
        ["r.example", "R.Example:8443", "[2001:db8::1]", "192.0.2.7:1", "u:p@r.example", "-_~.!$&'()*+,;="]
    ),
    st.text("abcXYZ019-._~:/?#[]@!$&'()*+,;=%", max_size=60),
)


headers = st.builds(
    PublicKeyPins,
    st.lists(pins, max_size=8).map(tuple),
    st.integers(0, 2**33),
    st.booleans(),
    st.none() | uris,
    st.booleans(),
    st.lists(st.tuples(tokens.filter(lambda token: token.lower() != "sha256"), quotable), max_size=8).map(tuple),
)


@given(headers)
def test_what_is_written_parses_to_itself(header: PublicKeyPins) -> None:
    again = PublicKeyPins.parse(str(header), report_only=header.report_only)
    assert again == header
    assert str(again) == str(header)


fragments = st.sampled_from(
    [
        "max-age",
        "=",
        '"',
        "\\",
        ";",
        " ",
        "\t",
        "3",
        "includeSubDomains",
        "pin-sha256",
        f'"{ONE}"',
        "report-uri",
        "pin-x",
        "https://r.example/",
        PINS,
        "max-age=3",
        "\r\n",
        "\x00",
        "\xe9",
        ",",
        "'",
        "-",
    ]
)


@given(st.one_of(st.text(max_size=80), st.lists(fragments, max_size=20).map("".join)), st.booleans())
def test_any_text_parses_or_is_an_invalid_header(value: str, report_only: bool) -> None:
    result = read(value, report_only=report_only)
    if isinstance(result, InvalidHeader):
        assert result.code in FILE["codes"]
        assert 0 <= result.position <= len(value)
        assert str(result.position) in str(result)
    else:
        assert accepted(value, report_only=report_only) == result


HOSTILE = {
    "one quoted-string": '"' * MAX_LENGTH,
    "many open quotes": 'a="' * (MAX_LENGTH // 3),
    "escapes": 'a="' + "\\" * (MAX_LENGTH - 3),
    "escaped quotes": 'a="' + '\\"' * (MAX_LENGTH // 2 - 2),
    "one token": "a" * MAX_LENGTH,
    "one token and a comma": "a" * (MAX_LENGTH - 1) + ",",
    "spaces": "a" + " " * (MAX_LENGTH - 2) + "b",
    "semicolons": "a" + ";" * (MAX_LENGTH - 1),
    "different directives": ";".join(f"{number:x}" for number in range(1800)),
    "long max-age": "max-age=" + "7" * (MAX_LENGTH - 8),
    "long report-uri": 'max-age=3;report-uri="https://' + "a:" * (MAX_LENGTH // 2 - 16) + '"',
    "brackets": 'max-age=3;report-uri="https://' + "[" * (MAX_LENGTH - 32) + '"',
    "pins": ";".join(['pin-x=""'] * (MAX_LENGTH // 9)),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_values_take_linear_work(name: str) -> None:
    """The grammar has no quadratic step: the scanner, which knows no limit, reads a value 64 times as long."""
    assert len(HOSTILE[name]) <= MAX_LENGTH
    for value in (HOSTILE[name], HOSTILE[name] * 64):
        result = read(value)
        assert isinstance(result, PublicKeyPins) or result.code in FILE["codes"]
        assert all(found.position <= len(value) for found in scan(value))


@given(st.lists(fragments, max_size=20).map("".join))
def test_the_scanner_reads_on_where_a_client_stops(value: str) -> None:
    found = list(scan(value))
    stretches = [(item.start if isinstance(item, Malformed) else item.position, item.end) for item in found]
    assert all(start < end <= len(value) for start, end in stretches)
    assert [end for _, end in stretches] == sorted(end for _, end in stretches)
    malformed = [item for item in found if isinstance(item, Malformed)]
    assert all(";" not in value[item.position : item.end] and value[item.end :][:1] in ("", ";") for item in malformed)
    if malformed and value.strip("\t ;"):
        assert refused(value).position == malformed[0].position
