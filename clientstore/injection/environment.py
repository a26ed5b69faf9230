"""What `dynpin run` passes on to the Pythons that it starts: the names of it, and how it is made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

from .start import AUDIT, ENFORCE, FOLDERS, MODES, NEEDED, NO_REPORTS, STORE

__all__ = ["environment_for"]

# Its sitecustomize.py is what Python runs first, where the folder stands on PYTHONPATH.
_BOOTSTRAP = Path(__file__).parent / "bootstrap"


def environment_for(
    store: Path, *, audit: bool = False, reports: bool = True, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment in which every Python enforces, and every Python that it starts in turn.

    Args:
        store: the file of the Known Pinned Hosts.
        audit: let through what would be refused, and tell of it on stderr.
        reports: whether violation reports are sent.
        environment: what it is added to.
    """
    others = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder != str(_BOOTSTRAP)]
    return {
        **environment,
        STORE: str(store.absolute()),
        MODES: " ".join([AUDIT if audit else ENFORCE, *([] if reports else [NO_REPORTS])]),
        FOLDERS: os.pathsep.join(dict.fromkeys(_folders())),
        "PYTHONPATH": os.pathsep.join([str(_BOOTSTRAP), *others] if any(others) else [str(_BOOTSTRAP)]),
    }


def _folders() -> Iterator[str]:
    for name in NEEDED:
        module = import_module(name)
        yield str(Path(str(module.__file__)).parent.parent)
