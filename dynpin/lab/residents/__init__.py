"""The scorer's own agents. ``python -m dynpin.lab.residents NAME`` runs one as a process that stays.

They import nothing of the scorer, so that a process starts fast: each imports only tasks, answers and its own library.
"""

from __future__ import annotations

from dynpin.lab.residents.task import Answer, Task

__all__ = ["Answer", "Task"]
