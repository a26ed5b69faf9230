"""The pages in a real browser: a person's way through them, hostile reports, and accessibility by axe-core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import Chromium, chromium, needs_axe, needs_chromium
from tests.middleware.collector.conftest import Site, running_site
from tests.middleware.collector.test_pages import HASH, HOSTILE, PASSWORD, fill, hostile_report

pytestmark = [
    needs_chromium,
    pytest.mark.xdist_group("chromium"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(file=tmp_path_factory.mktemp("site") / "r.sqlite", open_access=False, password=HASH) as running:
        fill(running)
        running.post(hostile_report(), **{"user-agent": HOSTILE})
        running.work()
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Chromium]:
    """A browser that has signed in by the form."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.visit(f"{site.url}/groups")
        assert "Sign in" in browser.text()
        browser.fill("#password", "wrong")
        browser.click("main button")
        assert "The password is wrong" in browser.text()
        browser.fill("#password", PASSWORD)
        browser.click("main button")
        assert browser.run("location.pathname") == "/"
        yield browser


def addresses(site: Site) -> dict[str, str]:
    groups = site.client.get("/api/groups", auth=("", PASSWORD)).json()["entries"]
    found = {group["host"]: f"/groups/{group['group']}" for group in groups}
    return {
        "overview": "/?since=24h",
        "groups": "/groups",
        "filtered": "/groups?host!=a.test&mode=enforce&since=7d",
        "nothing": "/groups?host=nobody.test",
        "reports": "/reports",
        "false alarm": found["demo.yubico.com"],
        "wrong pins": found["ciscodude.net"],
        "hostile": next(path for host, path in found.items() if "script" in host),
        "set-up": "/set-up",
        "audit": "/audit",
        "missing": "/groups/0",
        "bad filter": "/groups?verdict=nosuch",
        "sign-in": "/sign-in",
    }


PAGES = [
    "overview", "groups", "filtered", "nothing", "reports", "false alarm", "wrong pins", "hostile", "set-up", "audit",
]  # fmt: skip


def test_from_the_overview_to_a_decision(browser: Chromium, site: Site) -> None:
    browser.visit(site.url)
    assert "POSSIBLE ATTACKS" in browser.text().upper()
    browser.fill("[name=field]", "host")
    browser.fill("[name=value]", "demo.yubico.com")
    browser.click(".filters button")
    assert browser.run("location.search") == "?host=demo.yubico.com&since=7d"
    browser.click(".cards .cover")
    shown = browser.text()
    assert "Path variance" in shown
    assert "Go Daddy Class 2 Certification Authority" in shown
    browser.click("button[value=mute]")
    assert "muted" in browser.text()
    browser.visit(f"{site.url}/groups?state=muted")
    assert browser.run("document.querySelectorAll('.card.group').length") == 1
    browser.click(".chip a[title='Change to is not']")
    assert browser.run("location.search") == "?state!=muted"
    assert browser.run("document.querySelectorAll('.card.group').length") == 4


def test_the_failing_certificate_is_marked_in_the_picture(browser: Chromium, site: Site) -> None:
    browser.visit(site.url + addresses(site)["false alarm"])
    assert browser.run("document.querySelector('.served .cert.pinned h4').innerText") == (
        "Go Daddy Class 2 Certification Authority"
    )
    assert browser.run("document.querySelector('.validated .cert.failing h4').innerText") == (
        "Go Daddy Root Certificate Authority - G2"
    )
    # The root stands above the leaf, and the two leaves side by side.
    tops = browser.run("[...document.querySelectorAll('.validated .cert h4')].map(e => e.getBoundingClientRect().top)")
    assert tops == sorted(tops)
    leaves = browser.run("[...document.querySelectorAll('.cert')].slice(-2).map(e => e.getBoundingClientRect().top)")
    assert abs(leaves[0] - leaves[1]) < 1


@pytest.mark.parametrize("page", PAGES)
def test_nothing_runs_and_nothing_comes_from_elsewhere(browser: Chromium, site: Site, page: str) -> None:
    browser.visit(site.url + addresses(site)[page])
    assert browser.complaints() == []
    asked = browser.requests()
    assert asked, "its style sheet at least"
    assert all(url.startswith(site.url) for url in asked)
    assert browser.run("document.scripts.length") == 0
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0
    assert browser.run("getComputedStyle(document.body).margin") == "0px", "the style sheet is there"


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_wider_than_a_phone(browser: Chromium, site: Site, page: str) -> None:
    browser.look(width=360)
    browser.visit(site.url + addresses(site)[page])
    assert browser.run("document.documentElement.scrollWidth") <= 360
    browser.look()


def test_the_columns_of_a_table_are_all_in_sight(browser: Chromium, site: Site) -> None:
    for page in ("reports", "audit"):
        browser.visit(site.url + addresses(site)[page])
        cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert browser.run(cut) == 0, page


def test_where_the_storage_is_gone_there_is_a_page_that_says_so(browser: Chromium, tmp_path: Path) -> None:
    with running_site(file=tmp_path / "r.sqlite") as gone:
        gone.file.rename(tmp_path / "elsewhere.sqlite")
        browser.look(width=390)
        browser.visit(gone.url)
        assert browser.run("document.querySelector('h1').innerText") == "The report storage cannot be used now"
        assert browser.run("document.documentElement.scrollWidth") <= 390
        browser.look()


@needs_axe
@pytest.mark.parametrize(
    ("page", "scheme", "width"),
    [
        (page, scheme, width)
        for page in (*PAGES, "missing", "bad filter", "sign-in")
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390))
    ],
)
def test_axe_finds_no_fault(browser: Chromium, site: Site, page: str, scheme: str, width: int) -> None:
    browser.look(width=width, scheme=scheme)
    browser.visit(site.url + addresses(site)[page])
    assert browser.faults() == []
