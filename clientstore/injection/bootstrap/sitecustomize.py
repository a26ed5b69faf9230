"""Run by every Python that `dynpin run` starts, before the program: its TLS is enforced, or it does not begin.

Whatever Python it is reads this file first, so it is written in what all of them can read: Python 2 too.
"""
# ruff: noqa: PTH100, PTH120, TRY301, UP031

import os
import sys
from importlib import import_module

try:
    if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
        raise ImportError("it is no CPython 3.11 or later")
    # At the end, so that nothing of the program's is shadowed; and gone again before anything else looks there.
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
            "dynpin: %s was not started, since nothing would hold its connections against pins: %s: %s\n"
            % (sys.executable, type(_error).__name__, _error)
        )
        sys.stderr.flush()
    os._exit(2)  # for SystemExit it would print a fatal error of its own

# The one that this file shadows, of the program or its environment, runs as if this one were not there.
_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [_folder for _folder in sys.path if _folder != _here]
_next = import_module("importlib.machinery").PathFinder.find_spec("sitecustomize", sys.path)
if _next is not None:
    sys.modules["sitecustomize"] = import_module("importlib.util").module_from_spec(_next)
    _next.loader.exec_module(sys.modules["sitecustomize"])
