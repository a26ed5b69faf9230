"""Make the picture of docs/how-to/proxy.md: python -m tests.lab.proxy_picture"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from dynpin import PublicKeyPins
from dynpin.clientstore import PinStore
from tests.clientstore.world import HOST
from tests.environments import ROOT, proxy_environment

from .pinned_place import Place
from .proxies import RunningProxy, browser


def main() -> None:
    """Visit a pinned site while somebody else answers for its name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The default store, so that the page shows the command that most people will read.
        os.environ["XDG_DATA_HOME"] = name
        place = Place(folder)
        with place.site, PinStore(clock=lambda: time.time() - 3 * 86_400) as store:
            store.note(HOST, str(PublicKeyPins(place.pins, max_age=30 * 86_400)), place.pins[:1])
            place.attack("bank.test, says the hotspot")
            arguments = place.arguments(proxy_environment(), "--report", "off")
            at = arguments.index("--store")
            del arguments[at : at + 2]
            with RunningProxy(arguments, folder / "authority") as proxy, browser(proxy, folder / "profile") as tab:
                tab.look(width=1000)
                tab.visit(place.site.url(HOST))
                tab.screenshot(ROOT / "docs" / "_static" / "proxy-refused.png")


if __name__ == "__main__":
    main()
