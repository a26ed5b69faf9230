"""Three headers that were really found: copied pins, a single pin, milliseconds (RFC 7469 §2.5, §4.1)."""

from __future__ import annotations

from dynpin.errors import PolicyError
from dynpin.header import PublicKeyPins
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days
from dynpin.pins import Pin

# RFC 7469 §2.1.5
EXAMPLES = tuple(
    Pin.from_base64(text)
    for text in ("d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=", "E9CZ9INDbd+2eRQozYqqbQ2yXLVKB9+xcprMF+44U1g=")
)
# Below 2**31, at which parsers cap max-age.
MILLISECONDS = 20 * 86_400 * 1_000


@scenario(
    number=16,
    name="careless-headers",
    title="Copied pins, a single pin, milliseconds",
    story=(
        "Three sites pin in a hurry. The first copies the header from the RFC, with its pins. The second pins its key "
        "and no other. The third means 20 days and writes milliseconds, which is 54 years. Then the second renews with "
        "a new key, and the third loses its keys."
    ),
    rfc=(
        "Pins are noted only if one is in the chain and one is not (§2.5), so the first two headers have no effect, "
        "good or bad. max-age may be capped, for example at 60 days (§4.1)."
    ),
    browsers=(
        "chromium-valid",
        "firefox-valid",
        "chromium-cap",
        "firefox-cap",
        "wget2-any",
        "wget2-no-cap",
    ),
    dynpin=(
        "A Policy is built from keys, not from text, and refuses a single pin and more than 60 days; `dynpin lint` "
        "knows the examples of the RFC and of tutorials, and recognises milliseconds."
    ),
    sources=(
        "2016-11: ElevenPaths: 89 of 450 domains that pin have no pin or one.",
        "helmetjs/helmet: its hpkp took milliseconds at first, and was changed to seconds.",
    ),
)
def careless_headers(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    copied, single, millis = (stage.site(f"{name}.test", honest) for name in ("copied", "single", "millis"))
    alice, loose = stage.client("Alice"), stage.agent.name == "wget2"

    copied.sends(str(PublicKeyPins(EXAMPLES, 2_592_000)), "sends the example of the RFC, word for word")
    single.sends(str(PublicKeyPins((single.key.pin,), 2_592_000)), "pins its key, and no other")
    backup = millis.makes_key()
    pins = f'pin-sha256="{millis.key.pin}"; pin-sha256="{backup.pin}"'
    millis.sends(f"{pins}; max-age={MILLISECONDS}", "pins its keys for 20 days, in milliseconds")
    for site, fault in (
        (copied, "pin-example-from-rfc-or-tutorial"),
        (single, "backup-pin-missing-single-pin"),
        (millis, "max-age-milliseconds"),
    ):
        stage.check(f"dynpin lint finds it: {fault}", fault in site.faults())
    stage.refuses("Policy refuses a single pin", lambda: single.policy(max_age=days(30)), PolicyError)
    millis.backups.append(backup)
    stage.refuses("Policy refuses 54 years", lambda: millis.policy(max_age=MILLISECONDS), PolicyError)

    for site, notes in ((copied, loose), (single, loose), (millis, True)):
        visit = alice.visits(site)
        stage.expect(visit, "served")
        stage.check(f"the pins of {site.host} are {visit.noting}", visit.noting == ("noted" if notes else "ignored"))
    known = alice.knows(millis)
    kept = 0.0 if known is None or known.expires_at is None else (known.expires_at - stage.now) / 86_400
    stage.check(f"those of millis.test are kept for {kept:,.0f} days", round(kept) == (20_000 if loose else 60))

    stage.later(days(1))
    stage.expect(alice.visits(copied), "served", wget2="locked-out")
    single.deploys(single.makes_key(), "renews its certificate, with a new key")
    stage.expect(alice.visits(single), "served", wget2="locked-out")
    millis.loses(millis.key, backup)
    millis.deploys(millis.makes_key())
    millis.sends(None)
    stage.expect(alice.visits(millis), "locked-out")

    stage.later(days(60))
    stage.expect(alice.visits(millis), "served", wget2="locked-out", decisive=True)
