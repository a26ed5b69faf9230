"""How python-tuf's own client reads published files, without any of dynpin's client code."""

from __future__ import annotations

from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from dynpin.pin_list import PIN_LIST, PinList

__all__ = ["by_tuf_alone"]


class _Files(FetcherInterface):
    """Reads the published folder as if from a web server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> list[bytes]:  # type: ignore[override]
        file = self.folder / url.removeprefix("http://r/")
        if not file.is_file():
            raise DownloadHTTPError(f"{url} is missing", 404)
        return [file.read_bytes()]


def by_tuf_alone(root: bytes, served: Path, client: Path) -> PinList:
    """The list that a client accepts.

    Args:
        root: version 1 of the root.
        served: the published folder.
        client: the folder of the client's trusted files; it is created, and what it has seen before counts.

    Raises:
        RepositoryError: if the client does not accept it.
    """
    client.mkdir(exist_ok=True)
    updater = Updater(str(client), "http://r/", str(client), "http://r/targets/", _Files(served), bootstrap=root)
    target = updater.get_targetinfo(PIN_LIST)
    assert target is not None
    return PinList.parse(Path(updater.download_target(target)).read_bytes())
