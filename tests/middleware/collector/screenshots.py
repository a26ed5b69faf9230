"""The pictures of docs/reference/collector.md, made anew: python -m tests.middleware.collector.screenshots"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import httpx

from dynpin.middleware.collector import Limits, Token, collector
from dynpin.report import rfc3339
from tests.chromium import chromium
from tests.clock import Clock
from tests.middleware.collector import test_triage as cases
from tests.middleware.collector.conftest import NOW, serving, vector

PICTURES = Path(__file__).parents[3] / "docs" / "_static"
DAY = 86_400.0
AGENTS = ("Mozilla/5.0 (X11; Linux x86_64) Chrome/58.0", "dynpin/0.1 httpx/0.28", "kiosk-agent/2.3")


def main() -> None:
    """Send a week of reports, and look at every page."""
    limits = Limits(per_source=600)
    # Real time passes in no test: each report comes when the clock says so.
    chance = random.Random(7469)
    attack = cases.reported([cases.ATTACK], [cases.ATTACK, cases.STRANGER], cases.PINS)
    renewal = cases.reported([cases.FRESH, cases.MIDDLE], [cases.FRESH, cases.MIDDLE, cases.ROOT], cases.PINS)
    inspected = cases.reported([cases.INSPECTED], [cases.INSPECTED, cases.PROXY], cases.PINS)
    forged = cases.reported([cases.ATTACK], [cases.ATTACK, cases.ROOT], cases.PINS)
    sent = [
        (attack.to_dict(), "bank/enforce", 9, 3),
        (vector("real-chrome-yubico")["body"], "shop/report-only", 60, 6),
        (vector("real-chrome-ciscodude")["body"], "shop/report-only", 40, 6),
        (renewal.to_dict(), "shop/enforce", 120, 1.8),
        (inspected.to_dict(), "bank/enforce", 14, 4),
        (forged.to_dict(), "shop/enforce", 2, 2),
    ]
    events = [
        (NOW - chance.betavariate(1, 2) * days * DAY, body, path)
        for body, path, number, days in sent
        for _ in range(number)
    ]
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        app = collector(
            Path(folder) / "r.sqlite",
            tokens=[Token("shop", "Shop"), Token("bank", "Bank", ("api.test",))],
            open_access=True,
            limits=limits,
            roots=cases.ROOT.pem.encode(),
            clock=clock,
        )
        entrance = collector(Path(folder) / "entrance.sqlite", password="only to show the form")
        with serving(entrance) as url, chromium(Path(folder) / "visitor") as browser:
            browser.look()
            browser.visit(f"{url}/sign-in")
            browser.screenshot(PICTURES / "collector-sign-in.png")
        with serving(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
            for clock.now, body, path in sorted(events, key=lambda event: event[0]):
                # The reports of real browsers keep their dates.
                dated = body if str(body["date-time"]).startswith("2016") else body | {"date-time": rfc3339(clock.now)}
                client.post(f"/r/{path}", json=dated, headers={"user-agent": chance.choice(AGENTS)})
            clock.now = NOW
            for _ in range(40):
                client.post("/r/shop/enforce", content=b"no report")
            while app.service.worker.work():
                pass
            groups = client.get("/api/groups").json()["entries"]
            named = {group["verdict"]: f"/groups/{group['group']}" for group in groups}
            with chromium(Path(folder) / "profile") as browser:
                for name, path, width, scheme in (
                    ("collector-overview", "/", 1280, "light"),
                    ("collector-false-alarm", named["path-variance"], 1280, "light"),
                    ("collector-attack", named["unknown-ca"], 1280, "dark"),
                    ("collector-phone", named["unknown-ca"], 390, "light"),
                    ("collector-groups", "/groups?host!=demo.yubico.com&since=30d", 1280, "light"),
                    ("collector-reports", "/reports?verdict=private-root", 1280, "light"),
                    ("collector-set-up", "/set-up", 1280, "dark"),
                ):
                    browser.look(width=width, scheme=scheme)
                    browser.visit(url + path)
                    browser.screenshot(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
