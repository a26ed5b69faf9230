"""What a web application adds: the header of its keys, on every https response."""

from dynpin.middleware.asgi import PublicKeyPinsMiddleware
from dynpin.middleware.policy import Policy
from dynpin.middleware.wsgi import PublicKeyPinsWSGIMiddleware

__all__ = ["Policy", "PublicKeyPinsMiddleware", "PublicKeyPinsWSGIMiddleware"]
