"""How `dynpin run` passes its settings to the Pythons that it starts, and how each of them reads the settings.

Every Python below `dynpin run` imports this module, so it imports little; not even pathlib.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from .http import hook_http_client
from .rules import add_later
from .tls import hook_ssl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from dynpin.errors import PinValidationError

    from ..options import PinOptions

__all__ = ["begin", "environment_for"]

# Python runs its sitecustomize.py first, if the folder is on PYTHONPATH.
_BOOTSTRAP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap")  # noqa: PTH100, PTH118, PTH120
_STORE, _MODES, _FOLDERS = "DYNPIN_STORE", "DYNPIN_RUN", "DYNPIN_RUN_PATH"
_ENFORCE, _AUDIT, _NO_REPORTS = "enforce", "audit", "no-reports"
# What a client needs besides the standard library. All of it is pure Python, so that another version of Python can
# import it too. `cryptography` only names certificates in messages, and is not needed.
_NEEDED = ("dynpin", "idna", "platformdirs", "publicsuffixlist")


def environment_for(
    store: str, *, audit: bool = False, reports: bool = True, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment in which every Python enforces pins, and every Python that it starts in turn.

    Args:
        store: the file of the Known Pinned Hosts.
        audit: do not refuse, but report on stderr what would be refused.
        reports: whether violation reports are sent.
        environment: the variables to start from.
    """
    path = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder not in ("", _BOOTSTRAP)]
    files = [str(import_module(name).__file__) for name in _NEEDED]
    folders = dict.fromkeys(os.path.dirname(os.path.dirname(file)) for file in files)  # noqa: PTH120
    return {
        **environment,
        _STORE: os.path.abspath(store),  # noqa: PTH100
        _MODES: " ".join([_AUDIT if audit else _ENFORCE, *([] if reports else [_NO_REPORTS])]),
        _FOLDERS: os.pathsep.join(folders),
        "PYTHONPATH": os.pathsep.join([_BOOTSTRAP, *path]),
    }


def begin() -> None:
    """Enforce the store that the environment names in this process; the bootstrap calls this.

    Raises:
        ImportError: if a module that a client needs cannot be found.
        LookupError: if a variable of the environment is missing.
    """
    for name in (_STORE, _MODES, _FOLDERS):
        if not os.environ.get(name):
            raise LookupError(f"{name} of `dynpin run` is missing from its environment")
    modes, folders = os.environ[_MODES].split(), os.environ[_FOLDERS].split(os.pathsep)
    sys.meta_path.append(_Needed(folders))
    for name in _NEEDED:
        if not any(finder.find_spec(name, None) for finder in sys.meta_path):
            raise ImportError(
                f"{name} cannot be found, also not in {' or '.join(folders)}; install dynpin there, from "
                f"your clone: {sys.executable} -m pip install ."
            )
    options: PinOptions = {}
    if _AUDIT in modes:
        options = {"on_mismatch": "report", "on_violation": _tell}
    if _NO_REPORTS in modes:
        options["reporter"] = "off"
    add_later(os.environ[_STORE], options)
    hook_ssl()
    hook_http_client()


class _Needed:
    """Finds the modules that a client needs if the program's own environment does not have them.

    Their folders are not on sys.path: pip would take their packages for installed, and a program for its own.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, self._folders, target) if fullname in _NEEDED else None


def _tell(violation: PinValidationError) -> None:
    # Not only by logging: a program may have switched that off, and an audit must be seen.
    if sys.stderr is not None:
        print(f"dynpin: audit: this would have been refused: {violation}", file=sys.stderr, flush=True)
