"""What proxies say of their clients, and what is no such word."""

from __future__ import annotations

import logging

import pytest

from dynpin.middleware.behind_proxy import FIELDS, BehindProxy

SAID = [
    ("x-forwarded-proto", "https", True),
    ("x-forwarded-proto", "http, HTTPS", True),
    ("x-forwarded-proto", "http", False),
    ("x-forwarded-ssl", "on", True),
    ("x-forwarded-ssl", "off", False),
    ("front-end-https", "On", True),
    ("x-forwarded-scheme", "https", True),
    ("forwarded", 'for="[2001:db8::1]";proto=https', True),
    ("forwarded", 'for=192.0.2.1; Proto="https", for=10.0.0.1;proto=http', True),
    ("forwarded", "proto=http;host=https.example", False),
    ("forwarded", "proto=httpsx", False),
]


@pytest.mark.parametrize(("name", "value", "is_https"), SAID)
def test_who_says_that_clients_use_https(
    name: str, value: str, is_https: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    proxy = BehindProxy()
    for _ in range(2):
        proxy.see([(name, value)], "the fix")
    assert [record.getMessage().endswith("the fix") for record in caplog.records] == [True] * is_https


def test_every_field_is_in_lower_case() -> None:
    assert all(name == name.lower() for name in FIELDS)
