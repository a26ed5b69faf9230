"""Litestar. uvicorn litestar_app:app"""

from pathlib import Path

from litestar import Litestar, get, head
from litestar.response import Redirect, Stream
from litestar.static_files import create_static_files_router

from dynpin.middleware import PublicKeyPinsMiddleware


@get("/")
async def home() -> str:
    return "hello"


@head("/")
async def home_head() -> None:
    return None


@get("/moved", status_code=302)
async def moved() -> Redirect:
    return Redirect("/", status_code=302)


@get("/boom")
async def boom() -> str:
    raise RuntimeError("boom")


@get("/stream")
async def stream() -> Stream:
    return Stream(iter(["a", "b"]))


files = create_static_files_router("/static", [Path(__file__).parent / "static"])
app = PublicKeyPinsMiddleware(Litestar([home, home_head, moved, boom, stream, files]), "dynpin.toml")
