"""The answer of the proxy in place of a refused response: a page for people, plain text for programs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from dynpin.clientstore.enforcement import Explanation
from dynpin.lab.pages import page_templates

__all__ = ["MISDIRECTED", "REFUSED", "Refusal"]

# RFC 9110: the gateway got an invalid answer from upstream (§15.6.3); the request came on a connection that is not for
# this host (§15.5.20).
REFUSED, MISDIRECTED = 502, 421

_STYLE = """
:root { --paper: #f6f5f1; --card: #fffefb; --ink: #1d2330; --soft: #566072; --line: #dedbd0; --code: #eeece4;
  --attack: #a8181f; --pinned: #1c6b45; --accent: #1f4b99; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161d; --card: #1a2029; --ink: #e7eaf0; --soft: #a3adbd;
  --line: #2d3643; --code: #232b36; --attack: #ff9d98; --pinned: #82d8a9; --accent: #8db4ff; } }
html { font: 17px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere; }
main { box-sizing: border-box; max-width: 46rem; margin: 8vh auto 3rem; padding: 2rem 2.25rem 1.5rem;
  background: var(--card); border: 1px solid var(--line); border-top: 6px solid var(--attack); border-radius: 12px; }
.brand { margin: 0 0 1.25rem; font-weight: 700; } .brand span { font-weight: 400; color: var(--soft); }
.brand svg { width: 1.4rem; vertical-align: -.3rem; fill: none; stroke: var(--accent); stroke-width: 2.2;
  stroke-linecap: round; }
h1 { margin: 0 0 .6rem; font-size: 1.75rem; line-height: 1.2; letter-spacing: -.015em; color: var(--attack); }
h2 { margin: 0 0 .5rem; font-size: 1.05rem; }
.lead { font-size: 1.1rem; margin: 0 0 1.5rem; white-space: pre-line; }
dl { margin: 0 0 1.5rem; }
dt { margin-top: 1rem; font-size: .8rem; font-weight: 650; }
dt.shown { color: var(--attack); } dt.pinned { color: var(--pinned); }
dd { margin: .3rem 0 0; padding-left: .7rem; border-left: 3px solid var(--line); }
dd.shown { border-color: var(--attack); } dd.pinned { border-color: var(--pinned); }
dd span, .note, footer { color: var(--soft); font-size: .88rem; }
code, pre { font: .84rem/1.5 ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas, monospace; }
pre { margin: 0 0 .6rem; padding: .7rem .9rem; background: var(--code); border-radius: 6px; white-space: pre-wrap; }
section { padding-top: 1.25rem; border-top: 1px solid var(--line); } section p { margin: 0; }
@media (max-width: 50rem) { main { margin: 1rem; padding: 1.5rem; } }
footer { margin-top: 1.5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
"""

_HEADERS = {
    # The address bar shows the site's own name: nothing here may be loaded, run, framed, cached or passed on.
    "Content-Security-Policy": "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The next request must reach the site again, on a new connection.
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not forwarded.

    Attributes:
        host: the host that it was for.
        message: the reason, in the words of the error; its first line is the headline.
        explanation: the same in parts, if Pin Validation of a verified chain has failed.
        status: the HTTP status of the response.
    """

    host: str
    message: str
    explanation: Explanation | None = None
    status: int = REFUSED

    def response(self, accept: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers: HTML if the request's Accept names it, else plain text."""
        if "text/html" in accept.lower():
            return self.status, self._html().encode(), {"Content-Type": "text/html; charset=utf-8", **_HEADERS}
        return self.status, f"{self.message}\n".encode(), {"Content-Type": "text/plain; charset=utf-8", **_HEADERS}

    def _html(self) -> str:
        headline, _, details = self.message.partition("\n")
        return _template().render(
            host=self.host,
            headline=headline,
            details="\n".join(line.strip() for line in details.splitlines()),
            explanation=self.explanation,
            style=Markup(_STYLE),  # noqa: S704 - the constant above
        )


@cache
def _template() -> jinja2.Template:
    return page_templates(Path(__file__).parent).get_template("refusal.html")
