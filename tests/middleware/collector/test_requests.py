"""What a request may say of itself, and what no answer takes from it."""

from __future__ import annotations

from tests.middleware.collector.conftest import Site


def test_no_answer_trusts_the_host_header(running: Site) -> None:
    for host in ("[", "a[b]c", "evil.test"):
        assert running.client.get("/groups", headers={"host": host}).status_code == 200
        answer = running.client.get("/groups/", headers={"host": host})
        assert (answer.status_code, answer.headers.get("location")) == (404, None)


def test_the_style_is_given_as_a_whole(running: Site) -> None:
    """Older releases of Starlette take seconds for many ranges, and anybody may ask for this file."""
    ranges = ",".join(f"{number}-{number}" for number in range(0, 1000, 2))
    answer = running.client.get("/static/style.css", headers={"range": f"bytes={ranges}"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
