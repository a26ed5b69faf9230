"""Bottle. gunicorn bottle_app:app"""

from pathlib import Path

import bottle

from dynpin.middleware import PublicKeyPinsWSGIMiddleware

site = bottle.Bottle()


@site.get("/")
def home():
    return "hello"


@site.get("/moved")
def moved():
    bottle.redirect("/", 302)


@site.get("/boom")
def boom():
    raise RuntimeError("boom")


@site.get("/stream")
def stream():
    yield "a"
    yield "b"


@site.get("/static/<name>")
def static(name):
    return bottle.static_file(name, Path(__file__).parent / "static")


app = PublicKeyPinsWSGIMiddleware(site, "dynpin.toml")
