"""FastAPI. uvicorn fastapi_app:app"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

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


app = PublicKeyPinsMiddleware(api, "dynpin.toml")
