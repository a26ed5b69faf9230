"""The web part: pages, API, access and exports. Needs the extra ``collector``."""

from .access import Access, Viewer
from .app import web_app
from .gate import path_within

__all__ = ["Access", "Viewer", "path_within", "web_app"]
