"""Run by every Python that `dynpin run` starts, before the program: its TLS is enforced, or the program does not begin.

Any Python may read this file first, so its syntax must be valid in all of them, Python 2 included.
"""
# ruff: noqa: PTH100, PTH120, TRY301, UP031

import os
import sys
from importlib import import_module

try:
    if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
        raise ImportError("it is no CPython 3.11 or later")
    # At the end, so that it hides no module of the program; and removed again before anything else is imported.
    _path = sys.path[:]
    sys.path += os.environ.get("DYNPIN_RUN_PATH", "").split(os.pathsep)
    try:
        _injection = import_module("dynpin.clientstore.injection")
    finally:
        sys.path[:] = _path
    _injection.begin()
except BaseException as _error:  # noqa: BLE001 - Python would go on after any error here, without pins
    if sys.stderr is not None:
        sys.stderr.write(
            "dynpin: %s was not started, since its connections could not be checked against pins: %s: %s\n"
            % (sys.executable, type(_error).__name__, _error)
        )
        sys.stderr.flush()
    os._exit(2)  # SystemExit would print a fatal error of Python's own

# If this file hides a sitecustomize of the program or its environment, run that one too.
_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [_folder for _folder in sys.path if _folder != _here]
_next = import_module("importlib.machinery").PathFinder.find_spec("sitecustomize", sys.path)
if _next is not None:
    sys.modules["sitecustomize"] = import_module("importlib.util").module_from_spec(_next)
    _next.loader.exec_module(sys.modules["sitecustomize"])
