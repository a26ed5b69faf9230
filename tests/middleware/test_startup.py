"""A refused policy stops the server: real uvicorn in a process of its own, with its default settings."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest
from starlette.applications import Starlette

from dynpin.middleware import PublicKeyPinsMiddleware
from tests.middleware.conftest import Connect, Site, serving_asgi

# How an app comes by its middleware; each is built by uvicorn after it has begun to serve.
APPS = {
    "added": """
app = Starlette()
app.add_middleware(PublicKeyPinsMiddleware, **options)
""",
    "listed": """
app = Starlette(middleware=[Middleware(PublicKeyPinsMiddleware, **options)])
""",
    "wrapped": """
app = PublicKeyPinsMiddleware(Starlette(), **options)
""",
    "added beneath others": """
app = Starlette()
app.add_middleware(PublicKeyPinsMiddleware, **options)
app.add_middleware(GZipMiddleware)
app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
""",
}

HEAD = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from dynpin.middleware import PublicKeyPinsMiddleware
options = {"keys": "fullchain.pem", "backups": ["fullchain.pem"], "max_age": 3600}
"""


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_uvicorn_does_not_start(app: str, site: Site) -> None:
    (site.folder / "bank.py").write_text(HEAD + app)
    command = [sys.executable, "-m", "uvicorn", "bank:app", "--host", "127.0.0.1", "--port", "0"]
    command += ["--ssl-certfile", "fullchain.pem", "--ssl-keyfile", "key.pem"]
    done = subprocess.run(command, cwd=site.folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3, done.stderr
    # The reason stands where the operator looks: what, which file, and what next.
    assert "all Backup Pins are in the deployed chain" in done.stderr
    assert "fullchain.pem is the key of certificate 0 of" in done.stderr
    assert "Application startup failed. Exiting." in done.stderr
    assert "Uvicorn running on" not in done.stderr


def test_a_server_without_lifespan_answers_nothing_but_500(site: Site, connect: Connect) -> None:
    app = PublicKeyPinsMiddleware(Starlette(), keys=site.chain, max_age=60)
    # An app that speaks no lifespan hides it from the one beneath.

    async def deaf(scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await app(scope, receive, send)  # type: ignore[arg-type] # as the server gave them

    client: httpx.Client = connect(serving_asgi, deaf, site)
    assert [client.get("/", headers={"connection": "close"}).status_code for _ in range(2)] == [500, 500]


def test_importing_the_middleware_loads_no_framework() -> None:
    code = "import sys, dynpin.middleware; print(*sys.modules)"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    names = {name.split(".")[0] for name in loaded.stdout.split()}
    assert "cryptography" in names
    assert not names & {
        "starlette",
        "flask",
        "werkzeug",
        "uvicorn",
        "httpx",
        "typer",
        "rich",
        "sqlite3",
    }
