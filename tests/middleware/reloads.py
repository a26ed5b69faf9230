"""What the tests of changing files share."""

from __future__ import annotations

from tests.middleware.conftest import Site


def rotate(site: Site) -> None:
    """Deploy the backup key, with another backup."""
    site.deploy(site.spare)
    site.back_up(site.issue())
