"""The ASGI middleware on real uvicorn with TLS: which responses carry the header, and what passes untouched."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket
from websockets.sync.client import connect as connect_websocket

from dynpin import PolicyError
from dynpin.middleware import Policy, PublicKeyPinsMiddleware
from tests.middleware.conftest import ENFORCE, Connect, Site, serving_asgi

# uvicorn ends the connection after an exception: no test may find it in the client's pool a moment before.
CLOSE = {"connection": "close"}


async def _hello(request: Request) -> Response:
    return PlainTextResponse("hello")


async def _broken(request: Request) -> Response:
    raise RuntimeError("broken on purpose")


async def _handled(request: Request) -> Response:
    return PlainTextResponse("sorry", status_code=500)


async def _redirect(request: Request) -> Response:
    return RedirectResponse("/")


async def _stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for part in range(5):
            yield b"%d" % part
            await asyncio.sleep(0)

    return StreamingResponse(parts())


async def _own(request: Request) -> Response:
    return PlainTextResponse("own", headers={request.query_params["name"]: "max-age=0"})


async def _empty(request: Request) -> Response:
    return Response(status_code=204)


async def _echo(websocket: WebSocket) -> None:
    await websocket.accept(headers=[(b"x-own", b"1")])
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


def application(site: Site, **options: Any) -> Starlette:
    """A Starlette app of every sort of response."""
    return Starlette(
        routes=[
            Route("/", _hello, methods=["GET", "POST"]),
            Route("/broken", _broken),
            Route("/handled", _handled),
            Route("/redirect", _redirect),
            Route("/stream", _stream),
            Route("/own", _own),
            Route("/empty", _empty),
            Mount("/files", StaticFiles(directory=site.folder)),
            WebSocketRoute("/echo", _echo),
        ],
        **options,
    )


@pytest.fixture(scope="module")
def wrapped(module_site: Site, connect: Connect) -> httpx.Client:
    app = PublicKeyPinsMiddleware(application(module_site), **module_site.both())
    return connect(serving_asgi, app, module_site)


@pytest.fixture(scope="module")
def added(module_site: Site, connect: Connect) -> httpx.Client:
    app = application(module_site)
    app.add_middleware(PublicKeyPinsMiddleware, **module_site.both())
    return connect(serving_asgi, app, module_site)


@pytest.fixture(params=["wrapped", "added"])
def client(request: pytest.FixtureRequest) -> httpx.Client:
    found: httpx.Client = request.getfixturevalue(request.param)
    return found


RESPONSES = {
    "GET": ("GET", "/", 200, "hello"),
    "POST": ("POST", "/", 200, "hello"),
    "HEAD": ("HEAD", "/", 200, ""),
    "not found": ("GET", "/absent", 404, "Not Found"),
    "method not allowed": ("DELETE", "/", 405, "Method Not Allowed"),
    "server error": ("GET", "/handled", 500, "sorry"),
    "redirect": ("GET", "/redirect", 307, ""),
    "no content": ("GET", "/empty", 204, ""),
    "stream": ("GET", "/stream", 200, "01234"),
    "stream HEAD": ("HEAD", "/stream", 200, ""),
}


@pytest.mark.parametrize(("method", "path", "status", "text"), RESPONSES.values(), ids=RESPONSES)
def test_every_https_response_carries_it(
    method: str, path: str, status: int, text: str, client: httpx.Client, module_site: Site
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.text) == (status, text)
    module_site.assert_both_sent(response)


def test_a_static_file_carries_it(client: httpx.Client, module_site: Site) -> None:
    response = client.get("/files/backup.pub")
    assert response.content == module_site.backup.read_bytes()
    assert response.headers[ENFORCE] == module_site.expected()


def test_an_unhandled_exception_is_covered_by_wrapping(wrapped: httpx.Client, module_site: Site) -> None:
    response = wrapped.get("/broken", headers=CLOSE)
    assert (response.status_code, response.headers[ENFORCE]) == (500, module_site.expected())


def test_under_add_middleware_starlettes_own_500_comes_from_outside(added: httpx.Client) -> None:
    # Starlette puts its ServerErrorMiddleware around all that is added. Wrap the app to cover this one as well.
    response = added.get("/broken", headers=CLOSE)
    assert (response.status_code, response.headers.get(ENFORCE)) == (500, None)


@pytest.mark.parametrize("name", ["Public-Key-Pins", "Public-Key-Pins-Report-Only"])
def test_what_the_application_sets_itself_stands(name: str, client: httpx.Client, module_site: Site) -> None:
    module_site.assert_own_field_stands(client, name)


def test_plain_http_carries_nothing(module_site: Site, connect: Connect) -> None:
    app = PublicKeyPinsMiddleware(application(module_site), **module_site.both())
    response = connect(serving_asgi, app, None).get("/")
    assert (response.status_code, response.text) == (200, "hello")
    assert not [name for name in response.headers if name.startswith("public-key")]


def test_a_proxy_that_is_not_trusted_is_told_once(
    module_site: Site, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serving_asgi, PublicKeyPinsMiddleware(application(module_site), **module_site.options), None)
    # uvicorn believes X-Forwarded-Proto from 127.0.0.1, and never Forwarded.
    for fields in ({}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Ssl": "on"}, {"Forwarded": "proto=https"}):
        assert ENFORCE not in client.get("/", headers=fields).headers
    [said] = [record.getMessage() for record in caplog.records if record.name == "dynpin.middleware"]
    assert "sees plain http" in said
    assert "uvicorn --proxy-headers" in said


def test_the_scheme_is_what_a_trusted_proxy_says(module_site: Site, connect: Connect) -> None:
    # uvicorn believes X-Forwarded-Proto from 127.0.0.1 by default; the middleware believes uvicorn.
    app = PublicKeyPinsMiddleware(application(module_site), **module_site.both())
    client = connect(serving_asgi, app, None)
    assert client.get("/", headers={"x-forwarded-proto": "https"}).headers[ENFORCE] == module_site.expected()


@pytest.mark.parametrize("way", ["wrapped", "added"])
def test_a_websocket_passes_untouched(
    way: str, module_site: Site, trust: ssl.SSLContext, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(way).base_url.copy_with(scheme="wss", path="/echo")
    with connect_websocket(str(url), ssl=trust, proxy=None) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        assert websocket.response is not None
        assert websocket.response.headers["x-own"] == "1"
        assert ENFORCE not in websocket.response.headers


def test_lifespan_reaches_the_application(module_site: Site, connect: Connect) -> None:
    async def state(request: Request) -> Response:
        return PlainTextResponse(request.state.word)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, str]]:
        yield {"word": "started"}

    app = PublicKeyPinsMiddleware(Starlette(routes=[Route("/", state)], lifespan=lifespan), **module_site.both())
    assert connect(serving_asgi, app, module_site).get("/").text == "started"


def test_the_keywords_may_stand_where_the_middleware_is_named(module_site: Site, connect: Connect) -> None:
    app = application(module_site, middleware=[Middleware(PublicKeyPinsMiddleware, **module_site.options)])
    assert connect(serving_asgi, app, module_site).get("/").headers[ENFORCE] == module_site.expected()


# -- the protocol itself: what a server may send and an application may do --------------------------------------------


Messages = list[MutableMapping[str, Any]]


def run(app: Any, scope: dict[str, Any]) -> Messages:
    """Call an ASGI app once, with a request that is over at once; what it sends."""
    sent: Messages = []
    received = 0

    async def receive() -> MutableMapping[str, Any]:
        nonlocal received
        received += 1
        return {"type": "lifespan.startup"} if scope["type"] == "lifespan" else {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        # A server may take an answer that comes before its question for a fault.
        assert received or not message["type"].startswith("lifespan.")
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def sending(*messages: MutableMapping[str, Any]) -> Any:
    """An app that sends just these objects."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


START = "http.response.start"


def test_the_objects_of_the_application_stay_as_they_are(site: Site) -> None:
    # An app may send the same list for ever: a field added to it would stay, over plain http too and after a rotation.
    start = {"type": START, "status": 200, "headers": [(b"x-own", b"1")]}
    policy = Policy(**site.options)
    app = PublicKeyPinsMiddleware(sending(start), policy)
    for _ in range(2):
        [sent] = run(app, {"type": "http", "scheme": "https"})
        assert sent == {"type": START, "status": 200, "headers": [(b"x-own", b"1"), policy.field]}
    assert run(app, {"type": "http", "scheme": "http"}) == [start]
    assert start["headers"] == [(b"x-own", b"1")]


HEADERS: dict[str, dict[str, Any]] = {
    "absent": {},
    "empty": {"headers": ()},
    "a tuple": {"headers": ((b"a", b"1"),)},
    "lists": {"headers": [[b"a", b"1"]]},
    "an iterator": {"headers": iter([(b"a", b"1")])},
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_headers_are_any_iterable_or_absent(headers: dict[str, Any], site: Site) -> None:
    start = {"type": START, "status": 200, **headers}
    policy = Policy(**site.options)
    [sent] = run(PublicKeyPinsMiddleware(sending(start), policy), {"type": "http", "scheme": "https"})
    assert policy.field in list(sent["headers"])
    assert len(sent["headers"]) == 1 + bool(headers.get("headers"))


def test_a_field_of_the_application_counts_however_it_is_written(site: Site) -> None:
    # ASGI has names in lower case; applications that do not know it are sent on by servers all the same.
    start = {"type": START, "status": 200, "headers": [(b"Public-Key-Pins", b"max-age=0")]}
    [sent] = run(PublicKeyPinsMiddleware(sending(start), **site.options), {"type": "http", "scheme": "https"})
    assert sent["headers"] == start["headers"]


def test_other_messages_pass_as_the_objects_they_are(site: Site) -> None:
    others: Messages = [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.body", "body": b"", "more_body": True},
        {"type": "http.response.trailers", "headers": []},
    ]
    sent = run(PublicKeyPinsMiddleware(sending(*others), **site.options), {"type": "http", "scheme": "https"})
    assert all(mine is yours for mine, yours in zip(sent, others, strict=True))


OTHERS: list[dict[str, Any]] = [
    {"type": "http"},
    {"type": "http", "scheme": "http"},
    {"type": "websocket", "scheme": "wss"},
    {"type": "lifespan"},
    {"type": "of an extension", "scheme": "https"},
]


@pytest.mark.parametrize("scope", OTHERS, ids=str)
def test_what_other_scopes_send_passes_untouched(scope: dict[str, Any], site: Site) -> None:
    denial = {"type": "websocket.http.response.start", "status": 403, "headers": []}
    start = {"type": START, "status": 200, "headers": []}
    sent = run(PublicKeyPinsMiddleware(sending(denial, start), **site.options), scope)
    assert (sent[0] is denial, sent[1] is start) == (True, True)


def test_a_policy_that_was_silenced_adds_nothing(site: Site) -> None:
    policy = Policy(keys=site.chain, max_age=60, on_invalid="silence")
    start = {"type": START, "status": 200, "headers": []}
    [sent] = run(PublicKeyPinsMiddleware(sending(start), policy), {"type": "http", "scheme": "https"})
    assert sent["headers"] == []


# What is given wrongly, and what the message says.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "there is no policy"),
    "no keys": ({"max_age": 60}, "there is no policy"),
    "a misspelt keyword": ({"keys": "a.pem", "maxage": 60}, "unexpected keyword argument 'maxage'"),
    "a bad policy": ({"keys": "absent.pem", "max_age": 60}, "absent.pem cannot be read"),
    "keys of no kind": ({"keys": 5, "max_age": 60}, "keys= contains a value of type int"),
}


@pytest.mark.parametrize(("options", "words"), WRONG.values(), ids=WRONG)
def test_an_error_is_held_until_a_server_hears_of_it(
    options: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = PublicKeyPinsMiddleware(sending(), **options)
    assert words in caplog.text
    [failed] = run(app, {"type": "lifespan"})
    assert failed["type"] == "lifespan.startup.failed"
    assert words in failed["message"]
    for scope in ({"type": "http", "scheme": "https"}, {"type": "http"}, {"type": "websocket", "scheme": "wss"}):
        for _ in range(2):
            with pytest.raises(PolicyError, match=words):
                run(app, scope)


def test_two_policies_are_one_of_each_kind(site: Site) -> None:
    policy, trial = site.both().values()
    for given, words in (
        ({"policy": policy, "report_only": policy}, "report_only= takes a policy of mode='report-only'"),
        ({"policy": trial, "report_only": trial}, "two policies are report-only"),
        ({"policy": policy, "keys": site.chain}, r"there is a policy and also keywords \(keys\)"),
    ):
        with pytest.raises(PolicyError, match=words):
            run(PublicKeyPinsMiddleware(sending(), **given), {"type": "http"})
    alone = PublicKeyPinsMiddleware(sending({"type": START, "status": 200}), report_only=trial)
    [sent] = run(alone, {"type": "http", "scheme": "https"})
    assert sent["headers"] == [trial.field]
