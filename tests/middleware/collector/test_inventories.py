"""Several sites: verdicts, names and the set-up page follow the token."""

from __future__ import annotations

from dynpin import Pin
from dynpin.report import rfc3339
from tests.middleware.collector.chains import authority
from tests.middleware.collector.conftest import NOW, Start, report

DAY = 86_400
ROOT = authority("House CA")
SHOP, API = (ROOT.issue(f"{name}.test", since=NOW - 300 * DAY, days=900) for name in ("shop", "api"))
RENEWED = ROOT.issue("api.test", since=NOW - 300 * DAY, days=900)


def keys(**named: str) -> dict[Pin, str]:
    return {Pin.from_base64(pin): name for name, pin in named.items()}


def test_verdicts_names_and_set_up_follow_the_token(site: Start) -> None:
    inventories = {
        "shop": keys(shop_key=SHOP.pin, shop_backup=str(Pin(b"s" * 32))),
        "api": keys(api_key=API.pin, api_renewed=RENEWED.pin),
    }
    running = site(tokens=["shop", "api", "other"], inventories=inventories, roots=ROOT.pem.encode())
    sent = report(
        date_time=rfc3339(NOW),
        effective_expiration_date=rfc3339(NOW + 30 * DAY),
        hostname="api.test",
        noted_hostname="api.test",
        served_certificate_chain=[RENEWED.pem],
        validated_certificate_chain=[RENEWED.pem, ROOT.pem],
        known_pins=[f'pin-sha256="{API.pin}"'],
    )
    for token in ("api", "shop", "other"):
        assert running.post(sent, f"/r/{token}/enforce").status_code == 204
    found = {group["token"]: group for group in running.groups()}
    # api's own renewal is a policy that lags; under another's token the key is nobody's.
    assert {token: group["verdict"] for token, group in found.items()} == {
        "api": "stale-policy",
        "shop": "foreign-key",
        "other": "wrong-pin-set",
    }
    assert found["api"]["diagnosis"]["validated"][0]["own_key"] == "api_renewed"
    assert found["shop"]["diagnosis"]["validated"][0]["own_key"] is None
    page = running.client.get("/set-up").text
    for token, inventory in inventories.items():
        section = page.split(f">{token}</h2>")[1].partition("</section>")[0]
        for other in inventories.values():
            assert all((str(pin) in section) is (other is inventory) for pin in other)
    assert "PIN OF YOUR KEY" in page.split(">other</h2>")[1]


def test_one_cause_of_two_policies_is_a_group_of_each(site: Start) -> None:
    running = site(tokens=["a", "b"])
    for token in ("a", "b", "b"):
        running.post(report(), f"/r/{token}/enforce")
    assert {group["token"]: group["reports"] for group in running.groups()} == {"a": 1, "b": 2}
    assert [group["reports"] for group in running.groups("token=b")] == [2]
