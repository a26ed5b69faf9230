"""Django. gunicorn django_app:app"""

from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import path
from django.views.static import serve

from dynpin.middleware import PublicKeyPinsWSGIMiddleware

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="example")  # noqa: S106 - an example


def boom(request):
    raise RuntimeError("boom")


urlpatterns = [
    path("", lambda request: HttpResponse("hello")),
    path("moved", lambda request: HttpResponseRedirect("/")),
    path("boom", boom),
    path("stream", lambda request: StreamingHttpResponse(iter(["a", "b"]))),
    path("static/<path:path>", serve, {"document_root": Path(__file__).parent / "static"}),
]
app = PublicKeyPinsWSGIMiddleware(get_wsgi_application(), "dynpin.toml")
