"""Falcon. gunicorn falcon_app:app"""

from pathlib import Path

import falcon

from dynpin.middleware import PublicKeyPinsWSGIMiddleware


class Pages:
    def on_get(self, request, response):
        response.text = "hello"

    on_head = on_get

    def on_get_moved(self, request, response):
        raise falcon.HTTPFound("/")

    def on_get_boom(self, request, response):
        raise RuntimeError("boom")

    def on_get_stream(self, request, response):
        response.stream = iter([b"a", b"b"])


api = falcon.App()
api.add_route("/", Pages())
for name in ("moved", "boom", "stream"):
    api.add_route(f"/{name}", Pages(), suffix=name)
api.add_static_route("/static", Path(__file__).parent / "static")
app = PublicKeyPinsWSGIMiddleware(api, "dynpin.toml")
