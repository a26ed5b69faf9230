"""Starlette. uvicorn starlette_app:app"""

from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dynpin.middleware import PublicKeyPinsMiddleware


async def home(request):
    return PlainTextResponse("hello")


async def moved(request):
    return RedirectResponse("/", 302)


async def boom(request):
    raise RuntimeError("boom")


async def stream(request):
    return StreamingResponse(iter(["a", "b"]))


routes = [Route("/", home), Route("/moved", moved), Route("/boom", boom), Route("/stream", stream)]
routes.append(Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")))
app = PublicKeyPinsMiddleware(Starlette(routes=routes), "dynpin.toml")
