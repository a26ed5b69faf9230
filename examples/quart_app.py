"""Quart. uvicorn quart_app:app"""

from quart import Quart, redirect

from dynpin.middleware import PublicKeyPinsMiddleware

app = Quart(__name__, static_folder="static")


@app.get("/")
async def home():
    return "hello"


@app.get("/moved")
async def moved():
    return redirect("/")


@app.get("/boom")
async def boom():
    raise RuntimeError("boom")


@app.get("/stream")
async def stream():
    async def parts():
        yield b"a"
        yield b"b"

    return parts()


app.asgi_app = PublicKeyPinsMiddleware(app.asgi_app, "dynpin.toml")
