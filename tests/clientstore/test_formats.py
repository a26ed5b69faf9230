"""Pin files: what is written can be read again, and errors name the fault."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynpin import InvalidPinFile, KnownPinnedHost
from dynpin.clientstore.store.formats import (
    lost_in_wget2,
    read_chromium,
    read_csv,
    read_json,
    read_jsonl,
    read_toml,
    read_wget2,
    write_csv,
    write_json,
    write_jsonl,
    write_toml,
    write_wget2,
)
from dynpin.recovery import NotedRecovery, Recovery
from dynpin.report import LAST_SECOND

from .pin_files import CHROMIUM, CHROMIUM_KEYS, NOW, ONE, TWO, host_names, opened, pins, seconds, static, uris

# -- what is written is read again ------------------------------------------------------------------------------------


@st.composite
def noted(draw: st.DrawFn) -> KnownPinnedHost:
    return KnownPinnedHost(
        draw(host_names), draw(pins), draw(st.booleans()), draw(uris), draw(seconds), draw(seconds), origin=draw(uris)
    )


@given(st.lists(noted() | static(), max_size=5))
def test_json_json_lines_and_csv_hold_everything(entries: list[KnownPinnedHost]) -> None:
    for write, read in ((write_json, read_json), (write_jsonl, read_jsonl), (write_csv, read_csv)):
        assert list(read(opened("".join(write(entries))), now=0.0)) == entries


@pytest.mark.parametrize(
    ("write", "read", "held"),
    [(write_json, read_json, True), (write_jsonl, read_jsonl, True), (write_csv, read_csv, False)],
    ids=["json", "jsonl", "csv"],
)
def test_json_and_json_lines_hold_the_root_that_recovers_a_host(
    write: Callable[[Iterable[KnownPinnedHost]], Iterator[str]],
    read: Callable[..., Iterator[KnownPinnedHost]],
    held: bool,
) -> None:
    recovery = NotedRecovery(Recovery(bytes([7]) * 32, "https://lists.test/bank"))
    entry = KnownPinnedHost("bank.test", (ONE, TWO), False, None, NOW, NOW + 1, recovery=recovery)
    (again,) = read(opened("".join(write([entry]))), now=0.0)
    assert again == replace(entry, recovery=recovery if held else None)


@given(st.lists(static(), min_size=1, max_size=5))
def test_toml_holds_every_static_pin(entries: list[KnownPinnedHost]) -> None:
    assert list(read_toml(opened("".join(write_toml(entries))), now=NOW)) == entries


@given(st.lists(noted() | static(), max_size=5))
@example([KnownPinnedHost("*sha256.test", (ONE,), True, None, NOW, NOW + 1)])
def test_wget2s_file_has_everything_that_binds_a_client(entries: list[KnownPinnedHost]) -> None:
    held = [entry for entry in entries if "is left out" not in (lost_in_wget2(entry) or "")]
    assert list(read_wget2(opened("".join(write_wget2(entries))), now=0.0)) == [
        KnownPinnedHost(
            host=entry.host,
            pins=entry.pins,
            include_subdomains=entry.include_subdomains,
            report_uri=None,
            noted_at=max(0.0, entry.noted_at),
            expires_at=min(
                max(0.0, entry.noted_at) + 315_360_000
                if entry.expires_at is None
                else max(0.0, entry.noted_at, entry.expires_at),
                LAST_SECOND,
            ),
        )
        for entry in held
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (KnownPinnedHost("*.test", (ONE,), False, None, NOW, None), "*.test is left out: wget2 takes a line"),
        (
            KnownPinnedHost("a.test", (), False, None, NOW, None, "static", (bytes(32),)),
            "a.test is left out: it is pinned to certificates",
        ),
        (
            KnownPinnedHost("a.test", (ONE,), False, None, NOW, None, "static", (bytes(32),)),
            "a.test is also pinned to certificates",
        ),
    ],
    ids=["a star", "certificates alone", "certificates too"],
)
def test_what_wget2s_format_cannot_hold_is_reported(entry: KnownPinnedHost, said: str) -> None:
    told = lost_in_wget2(entry)
    assert told is not None
    assert told.startswith(said)
    written = "".join(write_wget2([entry]))
    assert ("left out" in said) == (entry.host not in written)
    assert lost_in_wget2(KnownPinnedHost("a*.test", (ONE,), False, None, NOW, None)) is None


@pytest.mark.parametrize("uri", ["=cmd()", "+1", "-1", "@x", "'=1"])
def test_no_cell_of_the_csv_is_a_formula(uri: str) -> None:
    text = "".join(write_csv([KnownPinnedHost("a.test", (TWO,), False, uri, NOW, NOW + 1)]))
    cells = [cell for line in text.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell[:1] in set("=+-@")]


@pytest.mark.parametrize(
    ("write", "read"),
    [(write_json, read_json), (write_jsonl, read_jsonl), (write_csv, read_csv), (write_toml, read_toml)],
    ids=["json", "jsonl", "csv", "toml"],
)
def test_no_escape_of_a_uri_or_an_origin_reaches_a_terminal(
    write: Callable[[Iterable[KnownPinnedHost]], Iterator[str]], read: Callable[..., Iterator[KnownPinnedHost]]
) -> None:
    entry = KnownPinnedHost("a.test", (ONE,), False, "https://\x1b[2J", NOW, None, "static", origin="\x9b\u202ea")
    written = "".join(write([entry]))
    assert written.replace("\n", "").isprintable()
    assert [each.report_uri for each in read(opened(written), now=NOW)] == ["https://\N{REPLACEMENT CHARACTER}[2J"]


# -- how a file is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["wget2", "jsonl", "csv"])
def test_a_million_entries_are_read_one_by_one(form: str) -> None:
    write, read = {
        "wget2": (write_wget2, read_wget2),
        "jsonl": (write_jsonl, read_jsonl),
        "csv": (write_csv, read_csv),
    }[form]
    never_ending = (
        KnownPinnedHost(f"h{number}.test", (ONE, TWO), False, None, NOW, NOW + 1) for number in itertools.count()
    )
    lines = (line for piece in write(never_ending) for line in piece.splitlines(keepends=True))
    entries = read(lines, now=0.0)
    assert [entry.host for entry in itertools.islice(entries, 3)] == ["h0.test", "h1.test", "h2.test"]


def many(count: int) -> list[KnownPinnedHost]:
    return [KnownPinnedHost(f"h{number}.test", (ONE,), False, None, NOW, None, "static") for number in range(count)]


def chromiums(count: int) -> str:
    entries = [{"name": f"h{number}.test", "pins": "test"} for number in range(count)]
    hsts = [{"name": f"s{number}.test", "mode": "force-https"} for number in range(20_000)]
    return json.dumps({"pinsets": [{"name": "test", "static_spki_hashes": ["First"]}], "entries": hsts + entries})


WHOLE = {
    "json": lambda count: json.dumps([{"host": f"h{number}.test", "pins": [str(ONE)]} for number in range(count)]),
    "toml": lambda count: f'[[static]]\nhost = "a.test"\npins = ["{ONE}"]\n' * count,
    "toml in one line": lambda count: "static = [" + f'{{host="a.test",pins=["{ONE}"]}},' * count + "]",
    "chromium": chromiums,
}


@pytest.mark.parametrize("form", WHOLE)
def test_formats_that_are_read_as_a_whole_take_ten_thousand_entries(form: str) -> None:
    read = READERS[form.partition(" ")[0]]
    assert len(read(WHOLE[form](10_000))) == 10_000
    with pytest.raises(InvalidPinFile, match=r"up to 10,000 entries, and there are more: use JSON lines \(jsonl\)"):
        read(WHOLE[form](10_001))


@pytest.mark.parametrize("read", [read_json, read_toml])
def test_no_more_is_read_than_ten_thousand_entries_may_take(
    read: Callable[..., Iterator[KnownPinnedHost]],
) -> None:
    with pytest.raises(InvalidPinFile, match="up to 10,000 entries"):
        list(read(itertools.repeat(" " * 1_000_000), now=NOW))


@pytest.mark.parametrize("write", [write_json, write_toml])
def test_no_more_is_written_than_can_be_read_again(
    write: Callable[[Iterable[KnownPinnedHost]], Iterator[str]],
) -> None:
    assert "".join(write(many(10_000))).count('"h9999.test"') == 1
    pieces = write(many(10_001))
    with pytest.raises(InvalidPinFile, match="up to 10,000 entries, and there are more"):
        next(pieces)  # before a piece of it is written


READERS: dict[str, Callable[[str], list[KnownPinnedHost]]] = {
    "json": lambda text: list(read_json(opened(text), now=NOW)),
    "jsonl": lambda text: list(read_jsonl(opened(text), now=NOW)),
    "csv": lambda text: list(read_csv(opened(text), now=NOW)),
    "toml": lambda text: list(read_toml(opened(text), now=NOW)),
    "wget2": lambda text: list(read_wget2(opened(text), now=NOW)),
    "chromium": lambda text: read_chromium(opened(text), opened(CHROMIUM_KEYS), now=NOW)[0],
    "chromium keys": lambda text: read_chromium(opened(CHROMIUM), opened(text), now=NOW)[0],
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@given(st.text() | st.text(alphabet='[]{}"=,:*# \n\tabsinp01') | st.recursive(st.none(), st.lists).map(json.dumps))
def test_any_text_is_read_or_refused_in_words_that_a_terminal_may_show(
    reader: Callable[[str], object], text: str
) -> None:
    try:
        reader(text)
    except InvalidPinFile as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is right


WRONG = [
    ("json", "{}", "not a list"),
    ("json", "[1]", "entry 1: it is not an object"),
    ("json", "[", "not JSON"),
    ("json", '[{"host": "a.test"}]', "at least one pin"),
    ("json", '[{"host": "127.0.0.1", "pins": ["PIN"]}]', "IP address"),
    ("json", '[{"host": "a b", "pins": ["PIN"]}]', "not a host name"),
    ("json", '[{"host": "a.test", "pins": ["short"]}]', "entry 1"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "source": "header"}]', "no expires_at"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "source": "rumour"}]', "source is 'rumour'"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "report_uri": "\\ud800"}]', "not a line of text"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "expires_at": "2030-01-01T00:00:00Z"}]', "on_expiry"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "expires_at": 5, "on_expiry": "refuse"}]', "not a time"),
    ("json", '[{"host": "a.test", "certificates": ["abcd"]}]', "64 hexadecimal digits"),
    ("csv", "", "no heading"),
    ("csv", "host\na.test\n", "no heading"),
    ("csv", "host,pins\na.test\n", "row 2: it has 1 cell"),
    ("csv", 'host,pins\n"a.test', "not CSV"),
    ("toml", "[[static]\n", "not TOML"),
    ("toml", "x = 1\n", "nothing else"),
    ("toml", "static = 1\n", "nothing else"),
    ("toml", f'[[static]]\nhost = "a.test"\npins = ["{ONE}"]\nsubdomains = true\n', "no field 'subdomains'"),
    ("toml", f'[[static]]\nhost = "a.test"\npins = ["{ONE}"]\nexpires_at = 2030-01-01\n', "on_expiry"),
    ("toml", '[[static]]\nhost = "a.test"\nkeys = ["key.pem"]\n', "only a file may name files"),
    ("toml", f'[[static]]\nhost = "a.test"\npins = ["{ONE}"]\ninclude_subdomains = "yes"\n', "not true or false"),
    ("wget2", "a.test 0 5\n", "line 1"),
    ("wget2", f"*sha256 {ONE}\n", "line 1"),
    ("wget2", "a.test 0 -5 10\n", "line 1"),
    ("wget2", "# a comment\na.test 0 5 10\n*sha256 nonsense\n", "line 3"),
    ("wget2", "a.test 0 5 10\n", "no pins"),
    ("wget2", "1.2.3.4 0 5 10\n", "line 1: 1.2.3.4 is an IP address"),
    ("wget2", "\x1b[2J 0 5 10\n", "line 1: '\\x1b[2J' is not a host name"),
    ("wget2", "a.test 0 253402300800 10\n", "line 1: 253402300800 seconds since 1970 are beyond the year 9999"),
    ("wget2", "a.test 0 inf 10\n", "line 1"),
    ("jsonl", "[]", "line 1: it is not an object"),
    ("jsonl", '\n{"host"\n', "line 2: it is not JSON: Expecting ':' delimiter, at column"),
    ("jsonl", '{"host": "a.test", "pins": ["PIN"]}\n{"host": "b.test"}\n', "line 2: a static pin for b.test needs"),
    ("jsonl", '{"host": "a.test", "pins": ["PIN"], "used": NaN}', "line 1: NaN is not a number of JSON"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "used": -Infinity}]', "-Infinity is not a number of JSON"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "noted_at": 1e999}]', "noted_at is inf, not a time"),
    ("json", '[{"host": "a.test", "pins": [1]}]', "pins has 1, not a text"),
    ("json", '[{"host": "a.test", "pins": 0}]', "pins is 0, not a list of texts"),
    ("json", '[{"host": "\\u001b[2J", "pins": ["PIN"]}]', "host is '\\x1b[2J', not a line of text"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "origin": "\\u009b2J"}]', "origin is '\\x9b2J', not a line"),
    ("json", '[{"host": "a.test", "pins": ["\\u001b"]}]', "'\\x1b' is not padded"),
    ("csv", "host,pins,report_uri\na.test,PIN,https://\x1b[2J\n", "report_uri is 'https://\\x1b[2J', not a line"),
    ("csv", "host,pins,\x1b,\x1b\n", "the heading has the column '\\x1b' twice"),
    ("csv", "host,pins,noted_at\na.test,PIN,nan\n", "noted_at is 'nan', not a time"),
    ("csv", "host,pins,noted_at\na.test,PIN,10000-01-01T00:00:00Z\n", "in the years 0001 to 9999"),
    ("csv", "host,pins,noted_at\na.test,PIN,9999-12-31T23:59:59-01:00\n", "in the years 0001 to 9999"),
    ("csv", "host,pins,noted_at\na.test,PIN,0001-01-01T00:00:00+01:00\n", "in the years 0001 to 9999"),
    ("toml", '[[static]]\nhost = "a.test"\npins = ["PIN"]\nexpires_at = inf\n', "expires_at is inf, not a time"),
    ("toml", '[[static]]\nhost = "a\\u001b"\npins = ["PIN"]\n', "entry 1 ('a\\x1b'): host is 'a\\x1b'"),
    ("toml", '[[static]]\nhost = "a.test"\n"\\u001b" = 1\n', "there is no field '\\x1b'"),
    ("toml", '[[static]]\nhost = "a.test"\nkeys = ["\\u001b.pem"]\n', "'\\x1b.pem' names a file"),
    ("chromium", '{"pinsets": [], "entries": [{"name": "\\u001b", "pins": "x"}]}', "entry 1 ('\\x1b')"),
    ("chromium", '{"pinsets": [{"name": "p", "static_spki_hashes": ["\\u001b"]}], "entries": []}', "not: '\\x1b'"),
    ("chromium", '{"pinsets": [NaN], "entries": []}', "NaN is not a number of JSON"),
    ("chromium", "[]", "not an object"),
    ("chromium", '{"pinsets": []}', "no list of entries"),
    ("chromium", '{"pinsets": [], "entries": [{"name": "a.test", "pins": "nobody"}]}', "no pinset 'nobody'"),
    ("chromium", '{"pinsets": [{"name": "p", "static_spki_hashes": ["Gone"]}], "entries": []}', "has not: 'Gone'"),
    ("chromium keys", f"sha256/{ONE}\n", "without a name"),
    ("chromium keys", "One\n", "in the middle"),
    ("chromium keys", "One\n-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "line 4"),
    ("chromium keys", "One\nnonsense here\n", "neither a name nor a key"),
]


@pytest.mark.parametrize(("form", "text", "said"), WRONG, ids=[f"{form}-{said}" for form, _, said in WRONG])
def test_a_file_that_is_wrong_is_refused_with_the_place(form: str, text: str, said: str) -> None:
    with pytest.raises(InvalidPinFile, match=re.escape(said)) as caught:
        READERS[form](text.replace("PIN", str(ONE)))
    assert str(caught.value).isprintable()
