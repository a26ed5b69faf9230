"""The WSGI middleware on a real threaded TLS server: which responses carry the header, and what passes untouched."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import flask
import httpx
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from dynpin import PolicyError
from dynpin.middleware import Policy, PublicKeyPinsWSGIMiddleware
from tests.middleware.conftest import ENFORCE, Connect, Site, serving_wsgi


def application(site: Site) -> flask.Flask:
    """A Flask app of every sort of response."""
    app = flask.Flask("bank", static_folder=str(site.folder), static_url_path="/files")

    @app.route("/", methods=["GET", "POST"])
    def hello() -> str:
        return "hello"

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("broken on purpose")

    @app.get("/redirect")
    def redirect() -> Any:
        return flask.redirect("/")

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response(str(part) for part in range(5))

    @app.get("/empty")
    def empty() -> tuple[str, int]:
        return "", 204

    @app.get("/own")
    def own() -> tuple[str, dict[str, str]]:
        return "own", {flask.request.args["name"]: "max-age=0"}

    return app


@pytest.fixture(scope="module")
def client(module_site: Site, connect: Connect) -> httpx.Client:
    app = application(module_site)
    app.wsgi_app = PublicKeyPinsWSGIMiddleware(app.wsgi_app, **module_site.both())  # type: ignore[method-assign] # Flask's own way
    return connect(serving_wsgi, app, module_site)


RESPONSES = {
    "GET": ("GET", "/", 200, "hello"),
    "POST": ("POST", "/", 200, "hello"),
    "HEAD": ("HEAD", "/", 200, ""),
    "not found": ("GET", "/absent", 404, None),
    "method not allowed": ("DELETE", "/", 405, None),
    "unhandled exception": ("GET", "/broken", 500, None),
    "redirect": ("GET", "/redirect", 302, None),
    "no content": ("GET", "/empty", 204, ""),
    "stream": ("GET", "/stream", 200, "01234"),
    "stream HEAD": ("HEAD", "/stream", 200, ""),
    "static file": ("GET", "/files/backup.pub", 200, None),
    "not modified": ("GET", "/files/backup.pub", 304, ""),
}


@pytest.mark.parametrize(("method", "path", "status", "text"), RESPONSES.values(), ids=RESPONSES)
def test_every_https_response_carries_it(
    method: str, path: str, status: int, text: str | None, client: httpx.Client, module_site: Site
) -> None:
    headers = {"if-none-match": client.get(path).headers["etag"]} if status == 304 else {}
    response = client.request(method, path, headers=headers)
    assert response.status_code == status
    assert text is None or response.text == text
    module_site.assert_both_sent(response)


@pytest.mark.parametrize("name", ["Public-Key-Pins", "Public-Key-Pins-Report-Only", "PUBLIC-KEY-PINS"])
def test_what_the_application_sets_itself_stands(name: str, client: httpx.Client, module_site: Site) -> None:
    module_site.assert_own_field_stands(client, name)


def test_plain_http_carries_nothing(module_site: Site, connect: Connect) -> None:
    app = PublicKeyPinsWSGIMiddleware(application(module_site), **module_site.both())
    response = connect(serving_wsgi, app, None).get("/")
    assert (response.status_code, response.text) == (200, "hello")
    assert not [name for name in response.headers if name.startswith("public-key")]


def test_a_proxy_that_is_not_trusted_is_told_once(
    module_site: Site, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serving_wsgi, PublicKeyPinsWSGIMiddleware(application(module_site), **module_site.options), None)
    for fields in ({}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Proto": "https"}, {"Forwarded": "proto=https"}):
        assert ENFORCE not in client.get("/", headers=fields).headers
    [said] = [record.getMessage() for record in caplog.records if record.name == "dynpin.middleware"]
    assert "sees plain http" in said
    assert "ProxyFix" in said


def test_the_scheme_is_what_a_trusted_proxy_says(module_site: Site, connect: Connect) -> None:
    app = ProxyFix(PublicKeyPinsWSGIMiddleware(application(module_site), **module_site.both()))
    client = connect(serving_wsgi, app, None)
    assert client.get("/", headers={"x-forwarded-proto": "https"}).headers[ENFORCE] == module_site.expected()


def test_a_change_of_the_keys_is_followed(site: Site, connect: Connect) -> None:
    policy = Policy(**site.options)
    client = connect(serving_wsgi, PublicKeyPinsWSGIMiddleware(application(site), policy), site)
    assert client.get("/").headers[ENFORCE] == site.expected()
    site.back_up(site.issue())
    policy.refresh()
    assert client.get("/").headers[ENFORCE] == site.expected()


# -- the protocol itself ---------------------------------------------------------------------------------------------


class Server:
    """The server's half of PEP 3333, which keeps what it was told."""

    def __init__(self, app: Any, scheme: str | None = "https") -> None:
        self.started: list[tuple[Any, ...]] = []
        self.written: list[bytes] = []
        environ = {"wsgi.url_scheme": scheme} if scheme else {}
        self.body = app(environ, self.start_response)

    def start_response(self, *arguments: Any) -> Any:
        self.started.append(arguments)
        return self.written.append


def test_write_and_the_body_pass_untouched(site: Site) -> None:
    class Body:
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            yield b"later"

        def close(self) -> None:
            self.closed = True

    body = Body()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])(b"written at once")
        return body

    policy = Policy(**site.options)
    server = Server(PublicKeyPinsWSGIMiddleware(app, policy))
    # PEP 3333: write() is the server's own, and what the app returned is not wrapped: close() and file wrappers work.
    assert server.started == [("200 OK", [policy.text_field])]
    assert server.written == [b"written at once"]
    assert server.body is body
    assert not body.closed


def test_exc_info_reaches_the_server(site: Site) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            raise RuntimeError("too late")
        except RuntimeError:
            start_response("500 Oh", [("X-Own", "1")], sys.exc_info())
            start_response("500 Oh", [], exc_info=sys.exc_info())
        return []

    policy = Policy(**site.options)
    first, second, third = Server(PublicKeyPinsWSGIMiddleware(app, policy)).started
    assert first == ("200 OK", [policy.text_field])
    assert second[:2] == ("500 Oh", [("X-Own", "1"), policy.text_field])
    assert [type(error) for _, error, _ in (second[2], third[2])] == [RuntimeError, RuntimeError]


def test_an_app_may_start_its_response_late(site: Site) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"

    policy = Policy(**site.options)
    server = Server(PublicKeyPinsWSGIMiddleware(app, policy))
    assert server.started == []
    assert list(server.body) == [b"a"]
    assert server.started == [("200 OK", [policy.text_field])]


def test_the_list_of_the_application_stays_as_it_is(site: Site) -> None:
    headers = [("X-Own", "1")]

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        return []

    policy = Policy(**site.options)
    for _ in range(2):
        assert Server(PublicKeyPinsWSGIMiddleware(app, policy)).started == [
            ("200 OK", [("X-Own", "1"), policy.text_field])
        ]
    for scheme in ("http", None):
        assert Server(PublicKeyPinsWSGIMiddleware(app, policy), scheme).started[0][1] is headers
    assert headers == [("X-Own", "1")]


@pytest.mark.parametrize("path", ["/", "/stream", "/absent"])
def test_the_validator_of_the_standard_library_finds_no_fault(path: str, module_site: Site) -> None:
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "HTTPS": "on"}
    setup_testing_defaults(environ)
    out, errors = io.BytesIO(), io.StringIO()
    app = validator(PublicKeyPinsWSGIMiddleware(validator(application(module_site).wsgi_app), **module_site.both()))
    SimpleHandler(io.BytesIO(), out, errors, environ).run(app)
    assert errors.getvalue() == ""
    assert f"\r\nPublic-Key-Pins: {module_site.expected()}\r\n".encode() in out.getvalue()


def test_a_policy_that_was_silenced_adds_nothing(site: Site) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    silent = Policy(keys=site.chain, max_age=60, on_invalid="silence")
    assert Server(PublicKeyPinsWSGIMiddleware(app, silent)).started == [("200 OK", [])]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "there is no policy"),
        ({"keys": Path("absent.pem"), "max_age": 60}, "absent.pem cannot be read"),
        ({"keys": "a.pem", "maxage": 60}, "unexpected keyword argument 'maxage'"),
    ],
)
def test_a_refused_policy_raises_where_the_app_is_built(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        PublicKeyPinsWSGIMiddleware(flask.Flask("bank"), **options)
