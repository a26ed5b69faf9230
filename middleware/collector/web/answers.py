"""How programs are answered."""

from __future__ import annotations

import json

from starlette.responses import JSONResponse

__all__ = ["ASCIIJSONResponse"]


class ASCIIJSONResponse(JSONResponse):
    """JSON in ASCII: Starlette's own has control sequences of strangers in it as they came, and terminals obey them."""

    def render(self, content: object) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False).encode()
