"""The linter: every named fault is found, none is invented, and it agrees with the parser (RFC 7469 §2.1-§5)."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs.fault_pages import example_circumstances, example_value, fault_page, index_page, write_pages
from dynpin import InvalidHeader, Pin, PublicKeyPins
from dynpin.deploy.lint import SEVERITIES, Circumstances, Finding, catalogue, lint
from dynpin.header import DIRECTIVE_NAMES

VECTORS = Path(__file__).parents[1] / "vectors"
FAULTS: Any = json.loads((VECTORS / "faults.json").read_text())
HEADERS: Any = json.loads((VECTORS / "header.json").read_text())["vectors"]

# Header and circumstances of this example are those of the control, word for word: nothing can tell them apart.
# The fault shows where the circumstances name the mode before, or a configuration without one; faults.toml has it.
SAME_AS_CONTROL = "default-mode-flipped-on-upgrade"
# True findings beside the expected one that weigh more: in these two examples no pin is in the chain at all.
HEAVIER = {"old-pin-dropped-too-early": {"no-pin-matches-chain"}, "hpkp-supercookie": {"no-pin-matches-chain"}}


def made(value: Any) -> Any:
    """The example with a real value in place of each <angle bracket>."""
    match value:
        case str():
            return re.sub(r"<[^<>]*>", lambda found: digest(found[0]), value)
        case list():
            return [made(item) for item in value]
        case dict():
            return {key: made(item) for key, item in value.items()}
        case _:
            return value


def digest(name: str) -> str:
    algorithm = hashlib.sha512 if "64" in name else hashlib.sha256
    return base64.b64encode(algorithm(name.encode()).digest()).decode()


def found_in(example: Any) -> tuple[Finding, ...]:
    header = made(example["header"])
    circumstances = Circumstances.from_dict(made(example["context"]))
    return lint(header["value"], name=header["name"], circumstances=circumstances)


def rank(severity: str) -> int:
    return [*SEVERITIES].index(severity)  # type: ignore[arg-type]  # a text of the vectors


EXAMPLES = [each for each in FAULTS["examples"] if each["category"] != "control"]
CONTROLS = [each for each in FAULTS["examples"] if each["category"] == "control"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each["fault"])
def test_the_fault_of_every_example_is_found_under_its_name(example: Any) -> None:
    if example["fault"] == SAME_AS_CONTROL:
        assert example["header"] == CONTROLS[0]["header"]
        assert example["context"] == CONTROLS[0]["context"]
        return
    found = found_in(example)
    named = [each for each in found if each.fault == example["fault"]]
    assert named, [each.fault for each in found]
    assert {each.severity for each in named} == {example["severity"]}
    heavier = {each.fault for each in found if rank(each.severity) > rank(example["severity"])}
    assert heavier <= HEAVIER.get(example["fault"], set())


@pytest.mark.parametrize("control", CONTROLS, ids=lambda each: each["fault"])
def test_no_fault_is_invented_on_a_control(control: Any) -> None:
    assert found_in(control) == ()


def test_the_catalogue_names_every_fault_with_its_severity_and_category() -> None:
    ours = {(fault.name, fault.severity, fault.category) for fault in catalogue().values()}
    theirs = {(each["fault"], each["severity"], each["category"]) for each in FAULTS["faults"]}
    assert theirs <= ours
    # More have no name there: what the grammar refuses otherwise, dynpin's own directives, and what stands in the
    # files behind a header.
    assert {name for name, _, _ in ours - theirs} == {
        "header-malformed",
        "header-too-long",
        "directive-repeated",
        "recovery-alone",
        "recovery-root-invalid",
        "recovery-uri-invalid",
        "header-missing",
        "header-differs-from-inventory",
        "history-differs",
        "chain-out-of-order",
        "ca-certificate-as-leaf",
        "certificate-expired",
        "certificate-not-yet-valid",
        "certificate-of-another-host",
        "certificate-unreadable",
        "certificate-unusable",
        "self-signed-certificate",
        "backup-pin-in-chain",
        "backup-pin-unproven",
        "backup-key-unusable",
        "keys-and-backups-swapped",
        "policy-refused",
    }


@pytest.mark.parametrize("name", catalogue())
def test_the_catalogue_s_own_example_has_the_fault(name: str) -> None:
    fault = catalogue()[name]
    value = example_value(fault)
    found = lint(value, name=fault.field, circumstances=example_circumstances(fault))
    named = [each for each in found if each.fault == name]
    assert named, [each.fault for each in found]
    for each in named:
        assert each.severity == fault.severity
        assert each.section == fault.section
        assert re.fullmatch(r"[1-7](\.\d)*", each.section)
        assert "{" not in each.message + each.fix
        assert each.span is None or 0 <= each.span[0] <= each.span[1] <= len(value or "")


def test_the_sound_deployment_of_the_catalogue_has_no_fault() -> None:
    fault = dataclasses.replace(catalogue()["pin-duplicate"], example="{pins}; max-age=5184000")
    assert lint(example_value(fault), circumstances=example_circumstances(fault)) == ()


MARKS = [
    ('pin-sha256="{k}"; pin-sha256="{b}"; max-age=300', "max-age-too-short", "max-age=300"),
    ('pin-sha256="{k}"; pin-sha256="{b}"; max-age=5184000; preload', "directive-unknown", "preload"),
    ('pin-sha256={k}; pin-sha256="{b}"; max-age=5184000', "pin-unquoted", "pin-sha256={k}"),
    ('pin-sha256="{k}"; pin-sha256="nonsense!"; max-age=5184000', "pin-not-base64", '"nonsense!"'),
    ('pin-sha256="{k}"; pin-sha256="{b}"; max-age=600; max-age=5184000', "max-age-repeated", "max-age=5184000"),
    ('pin-sha256="{k}"; pin-sha256="{b}"; report-uri="/r"; max-age=5184000', "report-uri-relative", 'report-uri="/r"'),
]


@pytest.mark.parametrize(("value", "fault", "marked"), MARKS, ids=[each[1] for each in MARKS])
def test_the_part_of_the_header_is_marked(value: str, fault: str, marked: str) -> None:
    key, backup = digest("key"), digest("backup")
    text = value.format(k=key, b=backup)
    span = next(each.span for each in lint(text) if each.fault == fault)
    assert span is not None
    assert text[span[0] : span[1]] == marked.format(k=key)


K, B = digest("key"), digest("backup")
PINS = f'pin-sha256="{K}"; pin-sha256="{B}"'
# Forms in which a fault comes, beyond the one in the catalogue.
VARIANTS = [
    (f"pin-sha256='{K}'; max-age=600; pin-sha256='{B}'", "pin-single-quoted"),
    (f"add_header Public-Key-Pins '{PINS}; max-age=5184000' always;", "header-value-carries-server-config-syntax"),
    (f'"{PINS}; max-age=5184000"', "header-value-carries-server-config-syntax"),
    (f"{PINS}; max-age=5184000 always", "header-value-carries-server-config-syntax"),
    (f'{PINS}; max-age=5184000"', "header-value-carries-server-config-syntax"),
    (f"Public-Key-Pins: {PINS}; max-age=5184000", "header-value-carries-server-config-syntax"),
    (f'Header always set Public-Key-Pins "{PINS}"', "header-value-carries-server-config-syntax"),
    ('pin-sha256="<your key>"; max-age=600', "pin-placeholder-text"),
    ('pin-sha256="..."; max-age=600', "pin-placeholder-text"),
    ("pin-sha256=<primary>; max-age=600", "pin-placeholder-text"),
    (f'pin-sha256="{"X" * 43}="; pin-sha256="{K}"; max-age=5184000', "pin-all-zero"),
    (f'pin-sha256="{":".join(["ab"] * 32)}"; max-age=600', "pin-hex"),
    (f'pin-sha256="{K[:-1]}"; pin-sha256="{B}"; max-age=600', "pin-base64url-or-unpadded"),
    (f"{PINS}; maxage=600", "max-age-missing"),
    (f"{PINS}; max-age", "max-age-not-a-number"),
    (f"{PINS}; max-age=", "max-age-not-a-number"),
    (f"{PINS}; max-age=60 days", "max-age-not-a-number"),
    (f"{PINS}; max-age=<seconds>", "max-age-not-a-number"),
    (f"{PINS}; max-age=5,5", "max-age-fraction"),
    (f"{PINS}; max-age = 5184000", "header-malformed"),
    (f"pin-sha256=&quot;{K}&quot;; max-age=600", "header-value-carries-server-config-syntax"),
    (f'("Public-Key-Pins" => "{PINS}")', "header-value-carries-server-config-syntax"),
    ('pin-sha256="PIN_1"; max-age=600', "pin-placeholder-text"),
    (f'{PINS}; max-age="-5"', "max-age-negative"),
    (f"{PINS}; max-age=2592000000", "max-age-milliseconds"),
    (f"{PINS}; max-age=99999999999999999999999999", "max-age-20-years"),
    (f'{PINS}; max-age=600; report-uri="http://"', "report-uri-not-a-uri"),
    (f"{PINS}; max-age=600; report-uri", "report-uri-not-a-uri"),
    (f'{PINS}; max-age=600; report-uri="report"', "report-uri-relative"),
    (f'{PINS}; report-uri="https://r.example.net; max-age=600', "report-uri-unbalanced-quote"),
    (f"{PINS}, {PINS}; max-age=600", "multiple-headers-comma-joined"),
    (f'public-key-sha256="{K}"; pin-sha256="{B}"; max-age=600', "pin-directive-misspelt"),
    (f'pin-sha384="{K}"; pin-sha256="{B}"; max-age=600', "pin-directive-misspelt"),
]


@pytest.mark.parametrize(("value", "fault"), VARIANTS, ids=[f"{fault}-{i}" for i, (_, fault) in enumerate(VARIANTS)])
def test_other_forms_of_a_fault(value: str, fault: str) -> None:
    assert fault in [each.fault for each in lint(value)]


def test_a_useless_algorithm_beside_enough_pins_is_only_worth_knowing() -> None:
    found = lint(f'pin-sha1="{digest("x")}"; {PINS}; max-age=5184000')
    assert [(each.fault, each.severity) for each in found] == [("pin-algorithm-unsupported-sha1", "info")]


@pytest.mark.parametrize("entry", FAULTS["known_bogus_pins"], ids=lambda each: each["from"])
def test_a_copied_pin_is_known_by_sight(entry: Any) -> None:
    found = lint(f'pin-sha256="{entry["pin"]}"; pin-sha256="{K}"; max-age=5184000')
    assert {each.fault for each in found} & {
        "pin-example-from-rfc-or-tutorial",
        "pin-of-empty-input",
        "pin-of-newline",
        "pin-decodes-to-ascii",
        "pin-all-zero",
    }


def test_a_copied_backup_beside_the_deployed_key_is_a_warning() -> None:
    rfc = FAULTS["known_bogus_pins"][0]["pin"]
    found = lint(f'pin-sha256="{K}"; pin-sha256="{rfc}"; max-age=5184000', circumstances=Circumstances(chain_pins=(K,)))
    assert [(each.fault, each.severity) for each in found] == [("pin-example-from-rfc-or-tutorial", "warning")]


@pytest.mark.parametrize("entry", FAULTS["known_ca_pins"], ids=lambda each: each["name"])
def test_a_policy_of_ca_pins_alone_names_the_authorities(entry: Any) -> None:
    other = next(each["pin"] for each in FAULTS["known_ca_pins"] if each["pin"] != entry["pin"])
    value = f'pin-sha256="{entry["pin"]}"; pin-sha256="{other}"; max-age=5184000'
    found = lint(value, circumstances=Circumstances(chain_pins=(K, B)))
    message = next(each.message for each in found if each.fault == "pins-only-CA-not-in-chain")
    assert entry["name"] in message


PRIOR = f'pin-sha256="{digest("old")}"; pin-sha256="{K}"; max-age=31536000; includeSubDomains'


def lifecycle(**known: Any) -> set[str]:
    return {each.fault for each in lint(f"{PINS}; max-age=5184000", circumstances=Circumstances(**known))}


def test_a_rotation_is_early_until_the_last_old_header_has_expired() -> None:
    shown = {"chain_pins": (digest("new"), B), "previous_header": PRIOR.replace(K, digest("spare"))}
    assert "rotation-too-early" in lifecycle(**shown)
    assert "rotation-too-early" in lifecycle(**shown, previous_header_age_s=31535999)
    assert "rotation-too-early" not in lifecycle(**shown, previous_header_age_s=31536000)
    assert "rotation-too-early" not in lifecycle(chain_pins=(K,), previous_header=PRIOR)


def test_the_key_of_tomorrow_is_held_against_the_header_of_yesterday() -> None:
    assert "rotation-too-early" in lifecycle(chain_pins=(digest("old"),), previous_header=PRIOR, deployed_key=B)
    assert "rotation-too-early" not in lifecycle(chain_pins=(digest("old"),), previous_header=PRIOR, deployed_key=K)


def test_what_the_operator_holds_decides_between_a_bad_renewal_and_the_end() -> None:
    assert {"renewal-creates-a-new-key"} == lifecycle(deployed_key=digest("x"), held_keys=(K, digest("x")))
    assert {"hpkp-suicide-all-keys-lost"} == lifecycle(deployed_key=digest("x"), held_keys=(digest("x"),))
    assert not lifecycle(deployed_key=B, held_keys=(K, B))


def test_a_foreign_backup_in_an_own_chain_is_hostile_pinning() -> None:
    found = lint(f"{PINS}; max-age=600", circumstances=Circumstances(chain_pins=(K,), held_keys=(K,)))
    hostile = next(each for each in found if each.fault == "hostile-pinning-ransompkp")
    assert B in hostile.message


def test_visitors_who_each_get_another_backup_are_marked() -> None:
    visits = [f'pin-sha256="{K}"; pin-sha256="{digest(str(n))}"; max-age=5184000' for n in range(3)]
    assert "hpkp-supercookie" in lifecycle(chain_pins=(K,), visits=tuple(visits))
    assert "hpkp-supercookie" not in lifecycle(chain_pins=(K,), visits=(visits[0], visits[0]))


def test_the_order_of_directives_is_no_difference_between_nodes() -> None:
    same = (f"{PINS}; max-age=600", f'max-age=600; pin-sha256="{B}"; pin-sha256="{K}"')
    assert "header-differs-between-nodes" not in lifecycle(nodes=same)


@pytest.mark.parametrize("vector", HEADERS, ids=lambda each: each["id"])
def test_an_error_is_found_where_the_parser_refuses(vector: Any) -> None:
    agree(vector["value"], report_only="Report-Only" in vector["header"])


def agree(value: str, *, report_only: bool) -> None:
    name = "Public-Key-Pins-Report-Only" if report_only else "Public-Key-Pins"
    found = lint(value, name=name)
    try:
        PublicKeyPins.parse(value, report_only=report_only)
        refused = None
    except InvalidHeader as error:
        refused = error
    if refused is not None:
        assert any(rank(each.severity) >= rank("error") for each in found), (refused, found)
    for each in found:
        assert each.span is None or 0 <= each.span[0] <= each.span[1] <= len(value)
        json.dumps(each.to_dict())


MARKS_OF_SYNTAX = [*" ;=\",'\\\t<>“-0Aé", "; ", '="']
WORDS = [
    "pin-sha256",
    "pin-sha512",
    "max-age",
    "includeSubDomains",
    "report-uri",
    "600",
    "always",
    "add_header ",
    "preload",
]
VALUES = [K, f'"{K}"', f'"{B}"', "https://r.example.net", '"https://r.example.net/"']
PIECES = st.sampled_from([*MARKS_OF_SYNTAX, *WORDS, *VALUES])


@given(st.lists(PIECES, max_size=30).map("".join), st.booleans())
def test_the_linter_agrees_with_the_parser_on_any_text(value: str, report_only: bool) -> None:
    agree(value, report_only=report_only)


@given(st.text(max_size=80), st.sampled_from(["", 'report-uri="', "pin-sha256=", "max-age="]), st.booleans())
def test_the_linter_survives_any_text(text: str, before: str, report_only: bool) -> None:
    agree(f"{before}{text}", report_only=report_only)
    agree(f'{PINS}; {before}{text}"', report_only=report_only)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.just(str(PINS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(Circumstances)]), JSON, max_size=6))
def test_circumstances_of_any_shape_are_read_or_refused(members: dict[str, Any]) -> None:
    try:
        known = Circumstances.from_dict(members)
    except ValueError:
        return
    for each in lint(f"{PINS}; max-age=600; includeSubDomains", circumstances=known):
        json.dumps(each.to_dict())


@given(
    st.lists(st.binary(min_size=32, max_size=32).map(Pin), max_size=4),
    st.integers(0, 2**31),
    st.booleans(),
    st.none() | st.just("https://r.example.net/x"),
)
def test_a_header_that_dynpin_writes_has_no_fault_of_syntax(
    pins: list[Pin], max_age: int, include_subdomains: bool, report_uri: str | None
) -> None:
    header = PublicKeyPins(tuple(pins), max_age, include_subdomains, report_uri)
    categories = {catalogue()[each.fault].category for each in lint(str(header))}
    assert not categories & {"syntax", "pin-syntax", "pin-value", "transport"}


def test_circumstances_that_are_none_are_refused_by_name() -> None:
    for given_, named in (({"host": 1}, "host"), ({"chain_pins": {}}, "chain_pins"), ({"paths": []}, "paths")):
        with pytest.raises(ValueError, match=named):
            Circumstances.from_dict(given_)
    with pytest.raises(ValueError, match="object"):
        Circumstances.from_json("[]")


@pytest.mark.parametrize("name", DIRECTIVE_NAMES[1:])
def test_a_misspelt_directive_is_told_with_the_one_that_looks_meant(name: str) -> None:
    misspelt = f"{name}{name[-1]}"
    found = {each.fault: each.message for each in lint(f'{misspelt}="x"; max-age=60')}
    assert f"{name} looks meant" in found["directive-unknown"]


def test_an_unknown_header_name_is_refused() -> None:
    with pytest.raises(ValueError, match="Strict-Transport-Security"):
        lint("max-age=1", name="Strict-Transport-Security")


def pages() -> Iterator[str]:
    return (fault_page(fault) for fault in catalogue().values())


def test_a_page_for_each_fault_from_the_same_source(tmp_path: Path) -> None:
    written = write_pages(tmp_path / "faults")
    assert {path.stem for path in written} == {"index", *catalogue()}
    for name, fault in catalogue().items():
        page = (tmp_path / "faults" / f"{name}.md").read_text()
        assert page.startswith(f"# {name}\n")
        assert fault.effect in page
        assert f"§{fault.section}" in page
    assert all(f"({name}.md)" in index_page() for name in catalogue())
    assert write_pages(tmp_path / "faults") == []
