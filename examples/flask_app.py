"""Flask. gunicorn flask_app:app"""

from flask import Flask, redirect

from dynpin.middleware import PublicKeyPinsWSGIMiddleware

app = Flask(__name__, static_folder="static")


@app.get("/")
def home():
    return "hello"


@app.get("/moved")
def moved():
    return redirect("/")


@app.get("/boom")
def boom():
    raise RuntimeError("boom")


@app.get("/stream")
def stream():
    return iter(["a", "b"])


app.wsgi_app = PublicKeyPinsWSGIMiddleware(app.wsgi_app, "dynpin.toml")
