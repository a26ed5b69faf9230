"""FastAPI. hypercorn fastapi_app:app"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from hypercorn.middleware import ProxyFixMiddleware

from dynpin.middleware import PublicKeyPinsMiddleware

api = FastAPI()
api.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))


@api.api_route("/", methods=["GET", "HEAD"])
async def home():
    return "hello"


@api.get("/moved")
async def moved():
    return RedirectResponse("/", 302)


@api.get("/boom")
async def boom():
    raise RuntimeError("boom")


@api.get("/stream")
async def stream():
    return StreamingResponse(iter(["a", "b"]))


# Hypercorn reads what the proxy says of the scheme here, and nowhere else: outside of the pins.
app = ProxyFixMiddleware(PublicKeyPinsMiddleware(api, "dynpin.toml"), mode="legacy", trusted_hops=1)
