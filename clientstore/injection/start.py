"""How a Python takes up what `dynpin run` has passed on: called by the bootstrap, before any code of the program.

Every Python below `dynpin run` runs this, so it imports little.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from .http import hook_http_client
from .rules import add_later
from .tls import hook_ssl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from dynpin.errors import PinValidationError

    from ..options import PinOptions

__all__ = ["AUDIT", "ENFORCE", "FOLDERS", "MODES", "NEEDED", "NO_REPORTS", "STORE", "begin"]

STORE, MODES, FOLDERS = "DYNPIN_STORE", "DYNPIN_RUN", "DYNPIN_RUN_PATH"
ENFORCE, AUDIT, NO_REPORTS = "enforce", "audit", "no-reports"
# What a client needs besides the standard library. All of it is Python, so that another version of Python can import
# it too. `cryptography` only names certificates in messages, and they are done without it.
NEEDED = ("dynpin", "idna", "platformdirs", "publicsuffixlist")


def begin() -> None:
    """Have the store that it was told hold for this process.

    Raises:
        ImportError: where what a client needs cannot be found.
        LookupError: where some of the environment is missing.
    """
    for name in (STORE, MODES, FOLDERS):
        if not os.environ.get(name):
            raise LookupError(f"{name} of `dynpin run` is missing from its environment")
    modes, folders = os.environ[MODES].split(), os.environ[FOLDERS].split(os.pathsep)
    sys.meta_path.append(_Needed(folders))
    for name in NEEDED:
        if not any(finder.find_spec(name, None) for finder in sys.meta_path):
            raise ImportError(
                f"there is no {name} for it, also not in {' or '.join(folders)}; install dynpin there: "
                f"{sys.executable} -m pip install dynpin"
            )
    options: PinOptions = {}
    if AUDIT in modes:
        options = {"on_mismatch": "report", "on_violation": _tell}
    if NO_REPORTS in modes:
        options["reporter"] = "off"
    add_later(os.environ[STORE], options)
    hook_ssl()
    hook_http_client()


class _Needed:
    """Finds what a client needs where the program's own environment does not have it.

    The folders do not go on sys.path, where pip would take their packages for installed, and a program for its own.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, self._folders, target) if fullname in NEEDED else None


def _tell(violation: PinValidationError) -> None:
    # Not by logging alone: a program may have switched that off, and an audit that nobody sees is none.
    if sys.stderr is not None:
        print(f"dynpin: audit: this would have been refused: {violation}", file=sys.stderr, flush=True)
