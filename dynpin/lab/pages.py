"""The templates of the lab's pages."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["page_templates"]

# colors.css is here: the colours of the pictures, as pages have them.
_PICTURE = Path(__file__).parent / "picture"


def page_templates(folder: Path) -> Environment:
    """The templates of a folder: what is put into one is escaped, and a name that has no value is an error."""
    return Environment(
        loader=FileSystemLoader([folder, _PICTURE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
