"""For web applications: add the header of a policy to every https response."""

from .asgi import PublicKeyPinsMiddleware
from .policy import Policy
from .wsgi import PublicKeyPinsWSGIMiddleware

__all__ = ["Policy", "PublicKeyPinsMiddleware", "PublicKeyPinsWSGIMiddleware"]
