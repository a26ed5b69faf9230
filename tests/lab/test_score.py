"""The scorer: it finds exactly the faults, each rule can be broken, and no agent can harm it."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dynpin.lab.residents import Answer, Task
from dynpin.lab.residents.naive import FAULTS, TEN, Naive
from dynpin.lab.score import DATA, Description, Rule, built_in, described, rules, score, score_page
from dynpin.lab.score.agent import Agent
from dynpin.lab.score.process import Children
from dynpin.lab.score.rules import Rules
from dynpin.lab.score.run import play
from dynpin.lab.score.testbed import Keys
from tests.chromium import chromium, needs_axe, needs_chromium

RULES = {rule.id: rule for rule in rules()}

# The rules that each fault breaks. Every rule must be here, so that none is a rule which no agent can break.
BROKEN_BY = {
    "age-optional": {"max-age-missing"},
    "last-repeated": {"directive-repeated"},
    "two-pins-suffice": {"no-backup"},
    "suffix": {"suffix-is-no-subdomain"},
    "meta": {"meta-ignored"},
    "plain-http": {"http-ignored"},
    "addresses": {"address-not-noted"},
    "ports": {"every-port"},
    "immortal": {"expired"},
    "report-only-enforced": {"report-only-not-noted"},
    "blind": {"first-use"},
    "careless": {
        *("max-age-no-number", "pin-unquoted", "pin-no-base64", "pin-too-short", "space-before-value", "single-quotes"),
        *("commas", "subdomains-valued", "open-quote", "one-pin", "no-pin-in-chain"),
    },
    "strict-order": {
        *("any-order", "case-of-names", "white-space", "unknown-directive", "semicolon-in-quotes"),
        *("unknown-algorithm", "max-age-quoted", "max-age-huge", "quoted-pair"),
    },
    "malformed-unpins": {"malformed-keeps-pins", "no-pins-keeps-pins"},
    "never-unpins": {"max-age-zero", "only-unknown-algorithms"},
    "hosts-alone": {"subdomains-covered", "subdomains-deep"},
    "nearest": {"farther-superdomain"},
    "farthest": {"own-entry-first"},
    "everything-below": {"subdomains-free", "parent-is-free"},
    "unpins-parent": {"superdomain-untouched"},
    "last-field": {"first-field"},
    "ok-alone": {"error-status", "redirect-noted"},
    "redirects-unchecked": {"redirect-checked"},
    "case": {"case-of-hosts"},
    "short-lived": {"not-expired"},
    "fixed-expiry": {"expiry-moves"},
    "adds-up": {"replaced", "subdomains-replaced"},
    "first-pin-alone": {"backup-serves", "static-serves"},
    "served-chain": {"superfluous-certificate"},
    "directly-issued": {"other-authority"},
    "leaf-alone": {"any-position", "static-any-position"},
    "first-header-alone": {"replaced"},
    "in-memory": {"kept-on-disk"},
    "trusts-pinned": {"pinned-but-untrusted", "pinned-but-expired", "pinned-but-wrong-name"},
    "trusts-all": {"static-refuses"},
    "resumes": {"resumed-session"},
    "never-forgets": {"forget"},
    "report-bare": {"report-members"},
    "report-never": {"report-sent", "report-only-reports"},
    "report-always": {"report-once"},
    "report-all": {"report-only-quiet"},
    "report-blind": {"report-connection"},
    "report-only-strict": {"report-only-max-age"},
    "report-only-refuses": {"report-only-serves"},
    "report-only-first": {"report-only-beside"},
}


@dataclass(slots=True)
class InThisProcess(Agent):
    """The naive agent without a process of its own."""

    faults: tuple[str, ...] = ("none",)
    naive: Naive | None = field(default=None, init=False)

    def do(self, task: Task) -> Answer:
        if self.naive is None:
            self.naive = Naive(*self.faults)
        return self.naive(task)

    def restart(self) -> None:
        self.naive = None


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def folder(tmp_path: Path, keys: Keys) -> Path:
    (tmp_path / "ca.pem").write_text(keys.trusted)
    return tmp_path


def test_every_rule_and_every_fault_has_its_test() -> None:
    assert set().union(*BROKEN_BY.values()) == set(RULES)
    assert set(BROKEN_BY) == set(FAULTS)


@pytest.mark.parametrize("fault", BROKEN_BY)
def test_a_fault_breaks_its_rules(fault: str, folder: Path, keys: Keys) -> None:
    agent = InThisProcess(described("naive"), Children(), folder, 20.0, faults=(fault,))
    found = {name: play(RULES[name], agent, keys) for name in BROKEN_BY[fault]}
    assert {name: verdict.outcome for name, verdict in found.items()} == dict.fromkeys(found, "broken")
    assert all(verdict.why and verdict.seen for verdict in found.values())


def test_without_its_faults_it_keeps_the_rules_that_it_breaks_with_them(folder: Path, keys: Keys) -> None:
    agent = InThisProcess(described("naive"), Children(), folder, 20.0)
    verdicts = [play(RULES[name], agent, keys) for fault in TEN for name in BROKEN_BY[fault]]
    assert [(verdict.rule.id, verdict.why) for verdict in verdicts if verdict.outcome != "held"] == []


def test_the_naive_agent_is_wrong_in_exactly_ten_ways() -> None:
    found = score("naive", described("naive"), rules())
    assert {verdict.rule.id for verdict in found.of("broken")} == set().union(*(BROKEN_BY[fault] for fault in TEN))
    assert dict(found.counts) == {"held": len(RULES) - 10, "broken": 10, "not testable": 0}


def test_dynpin_keeps_every_rule_that_it_can_be_asked() -> None:
    found = score("dynpin-httpx", described("dynpin-httpx"), rules())
    assert [(verdict.rule.id, verdict.why) for verdict in found.of("broken")] == []
    # httpx resumes no TLS session.
    assert [verdict.rule.id for verdict in found.of("not testable")] == ["resumed-session"]


FEW = ("first-use", "directive-repeated", "expired", "redirect-checked", "report-sent", "static-refuses")


@pytest.mark.parametrize(
    ("agent", "broken", "untestable"),
    [
        ("dynpin-requests", set(), set()),
        ("dynpin-urllib3", set(), set()),
        ("dynpin-aiohttp", set(), set()),
        ("dynpin-http-client", set(), {"redirect-checked"}),
        ("chromium", {"directive-repeated"}, {"redirect-checked"}),
        ("firefox", {"report-sent"}, {"redirect-checked"}),
    ],
)
def test_the_agents_that_come_along(agent: str, broken: set[str], untestable: set[str]) -> None:
    found = score(agent, described(agent), [RULES[name] for name in FEW], processes=1)
    assert {verdict.rule.id for verdict in found.of("broken")} == broken
    assert {verdict.rule.id for verdict in found.of("not testable")} == untestable
    assert found.model == (agent in ("chromium", "firefox"))


# The list in docs/how-to/score.md, with the places in wget2's source.
WGET2_BREAKS = {
    *("max-age-huge", "max-age-no-number", "directive-repeated", "pin-unquoted", "pin-no-base64", "pin-too-short"),
    *("space-before-value", "single-quotes", "commas", "subdomains-valued", "open-quote", "malformed-keeps-pins"),
    *("no-pins-keeps-pins", "only-unknown-algorithms", "farther-superdomain", "no-backup", "one-pin"),
    *("quoted-pair", "no-pin-in-chain", "superfluous-certificate", "report-sent", "report-only-reports"),
}


@pytest.mark.skipif(shutil.which("wget2") is None, reason="wget2 is not installed: apt-get install wget2")
def test_wget2_has_its_known_departures_and_no_other() -> None:
    found = score("wget2", described("wget2"), rules())
    assert {verdict.rule.id for verdict in found.of("broken")} == WGET2_BREAKS
    page = (Path(__file__).parents[2] / "docs/how-to/score.md").read_text()
    assert [name for name in WGET2_BREAKS if f"`{name}`" not in page] == []
    again = score("wget2-resuming", described("wget2-resuming"), [RULES["first-use"], RULES["resumed-session"]])
    assert [verdict.rule.id for verdict in again.of("broken")] == ["resumed-session"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl")
def test_curl_is_scored_for_its_static_pins() -> None:
    chosen = [RULES[name] for name in ("first-use", "static-refuses", "static-serves", "static-any-position")]
    found = score("curl", described("curl"), chosen)
    outcomes = {verdict.rule.id: verdict.outcome for verdict in found.verdicts}
    # It compares only the leaf's key.
    assert outcomes == {
        "first-use": "not testable",
        "static-refuses": "held",
        "static-serves": "held",
        "static-any-position": "broken",
    }


# -- hostile and clumsy agents ----------------------------------------------------------------------------------------

HARM = {
    "hangs": ("import time; time.sleep(600)", "did not end within 1 second"),
    "floods": ("while True: print('x' * 65536)", "it wrote more than"),
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
    "silent": ("pass", "never connected"),
    "leaves-a-child": ("import subprocess; subprocess.Popen(['sleep', '600'])", "never connected"),
}


@pytest.mark.parametrize("harm", HARM)
def test_no_command_holds_the_scorer_up(harm: str) -> None:
    code, why = HARM[harm]
    description = Description(title="harm", command=(sys.executable, "-c", code, "{url}"), names="own")
    chosen = list(rules())[:6]
    found = score("harm", description, chosen, timeout=1.0, processes=2)
    assert found.counts["not testable"] == len(chosen)
    assert why in found.verdicts[0].why


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import time; time.sleep(600)", "did not answer within 1 second"),
        ("while True: print('x' * 65536)", "it wrote more than"),
        ("input(); print('{}', flush=True); input()", "not a line of JSON with an outcome"),
        ("input(); print('{\"outcome\": []}', flush=True); input()", "not a line of JSON with an outcome"),
        ("print('no such file')", "no such file"),
        ("input(); print('{\"outcome\":' + '[' * 200_000, flush=True); input()", "not a line of JSON with an outcome"),
        ('input(); print(\'{"outcome": "done"}\', flush=True); input()', "not a line of JSON with an outcome"),
    ],
    ids=["hangs", "floods", "no-outcome", "wrong-type", "ends", "nested", "not-of-a-visit"],
)
def test_no_resident_agent_holds_the_scorer_up(code: str, why: str) -> None:
    description = Description(title="harm", command=(sys.executable, "-c", code), resident=True, names="own")
    found = score("harm", description, [RULES["first-use"]], timeout=1.0)
    assert found.verdicts[0].outcome == "not testable"
    assert why in found.verdicts[0].why


def test_an_agent_that_stays_behind_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has left its process group, and continues to fill the folder while that is removed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, pathlib, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    end = time.monotonic() + 20\n"
        "    os.close(1), os.close(2)\n"
        "    while time.monotonic() < end and os.path.exists(sys.argv[1]):\n"
        "        try: pathlib.Path(sys.argv[1], str(time.monotonic_ns())).mkdir(); time.sleep(0.0001)\n"
        "        except OSError: pass\n"
    )
    description = Description(title="stays", command=(sys.executable, "-c", code, "{folder}", "{url}"), names="own")
    found = score("stays", description, [RULES["first-use"]], timeout=60.0)
    assert "never connected" in found.verdicts[0].why


def test_an_agent_that_removes_its_folder_costs_no_result() -> None:
    code = "import shutil, sys; shutil.rmtree(sys.argv[1])"
    description = Description(title="gone", command=(sys.executable, "-c", code, "{folder}", "{url}"), names="own")
    found = score(
        "gone", description, [RULES["report-only-serves"], RULES["report-only-quiet"]], timeout=60.0, processes=1
    )
    assert [verdict.outcome for verdict in found.verdicts] == ["not testable", "not testable"]
    assert "the agent removed its folder" in found.verdicts[1].why


def test_any_output_of_an_agent_can_be_written_to_a_file() -> None:
    """A lone surrogate cannot be encoded in any encoding."""
    code = 'input(); print(\'{"outcome": "failed", "detail": "\\\\ud800"}\', flush=True); input()'
    description = Description(title="odd", command=(sys.executable, "-c", code), resident=True, names="own")
    found = score("odd", description, [RULES["first-use"]], timeout=60.0)
    assert score_page(found).encode()


def test_placeholders_are_arguments_and_never_read_by_a_shell(tmp_path: Path) -> None:
    place = tmp_path / 'it\'s "here"; $(touch pwned)'
    place.mkdir()
    description = Description(
        title="shows",
        command=(sys.executable, "-c", "import sys; sys.exit(sys.argv[1])", "{folder}|{{x}}|{url}"),
        names="own",
    )
    agent = Agent(description, Children(), place, 20.0)
    answer = agent.do(Task(do="visit", url="https://a'b.test/", store="s", ca="c", now=0.0))
    assert answer.detail == f"exit code 1: {place}|{{x}}|https://a'b.test/"
    assert not list(tmp_path.rglob("pwned"))


def test_the_home_of_an_agent_is_its_folder(tmp_path: Path) -> None:
    code = "import os, sys; sys.exit(os.environ['HOME'] + ' ' + os.getcwd() + str('WGETRC' in os.environ))"
    agent = Agent(
        Description(title="home", command=(sys.executable, "-c", code), names="own"), Children(), tmp_path, 20.0
    )
    answer = agent.do(Task(do="visit", url="u", store="s", ca="c", now=0.0))
    assert answer.detail.endswith(f"{tmp_path} {tmp_path}False")


# -- the data ----------------------------------------------------------------------------------------------------------


def test_the_schemas_are_those_of_the_data() -> None:
    for model, name in ((Rules, "rules"), (Description, "agent")):
        assert json.loads((DATA / f"{name}.schema.json").read_text()) == model.model_json_schema()


def test_the_rules_have_different_names_and_each_decides() -> None:
    assert len(RULES) == len(rules())
    assert [rule.id for rule in rules() if not _decides(rule)] == []


def _decides(rule: Rule) -> bool:
    return any(
        getattr(step, "decides", False) or step.do == "unreached" or getattr(step, "members", False)
        for step in rule.steps
    )


@pytest.mark.parametrize("name", built_in())
def test_the_descriptions_that_come_along_can_be_read(name: str) -> None:
    assert described(name).title


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no --agent"),
        ("nobody", "there is no agent 'nobody'"),
        ("curl 'x {url}", "No closing quotation"),
        ("curl {ulr}", "no placeholder {ulr}"),
        ("curl https://x", "needs {url}"),
        ("wrong.toml", "comand"),
        ("broken.toml", "broken.toml"),
        (" ", "no --agent"),
        ("'' {url}", "the command names no program"),
        ("twice.toml", "exit code 5 cannot be both served and refused"),
        ("nul.toml", "NUL"),
        ("variable.toml", "'A=B' is not a valid name of a variable"),
        ("deep.toml", "deep.toml: nested too deeply"),
    ],
)
def test_a_wrong_description_is_reported(text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong.toml").write_text('title = "x"\ncomand = ["x"]\ncommand = ["x", "{url}"]\n')
    (tmp_path / "broken.toml").write_text("title = \n")
    command = 'title = "x"\ncommand = ["x", "{url}"]\n'
    (tmp_path / "twice.toml").write_text(f"{command}served = [0, 5]\nrefused = [5]\n")
    (tmp_path / "nul.toml").write_text('title = "x"\ncommand = ["x", "{url}\\u0000"]\n')
    (tmp_path / "variable.toml").write_text(f'{command}environment = {{ "A=B" = "x" }}\n')
    (tmp_path / "deep.toml").write_text(f"title = {'[' * 100_000}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=why.replace("{", r"\{")):
        described(text)


def test_the_page_escapes_what_an_agent_says() -> None:
    code = "import sys; sys.exit('<script>alert(1)</script>')"
    description = Description(title="<b>x</b>", command=(sys.executable, "-c", code, "{url}"), names="own")
    page = score_page(score("x", description, [RULES["first-use"]]))
    assert "<script>" not in page
    assert "<b>x</b>" not in page
    assert "&lt;script&gt;" in page


@needs_chromium
@needs_axe
@pytest.mark.xdist_group("chromium")
def test_axe_finds_no_fault_in_the_page(tmp_path: Path) -> None:
    """On a desktop and a phone, light and dark; nothing scrolls sideways."""
    chosen = [RULES[name] for name in ("first-use", "directive-repeated", "redirect-checked", "report-sent")]
    found = score("chromium", described("chromium"), chosen, processes=1)
    assert all(found.counts.values()), "the page has a section for each outcome"
    file = tmp_path / "score.html"
    file.write_text(score_page(found), encoding="utf-8")
    with chromium(tmp_path / "profile") as browser:
        for width, scheme in itertools.product((1280, 390), ("light", "dark")):
            browser.look(width=width, scheme=scheme)
            browser.visit("about:blank")
            browser.visit(file.as_uri())
            browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
            assert browser.faults() == [], (width, scheme)
            assert browser.run("document.documentElement.scrollWidth") <= width
