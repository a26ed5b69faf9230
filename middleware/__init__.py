"""What a web application adds: the header of its keys, on every https response."""

from .asgi import PublicKeyPinsMiddleware
from .policy import Policy
from .wsgi import PublicKeyPinsWSGIMiddleware

__all__ = ["Policy", "PublicKeyPinsMiddleware", "PublicKeyPinsWSGIMiddleware"]
