"""The agents that come along with the scorer and stay: ``python -m dynpin.lab.residents NAME`` is the process of one.

They know nothing of the scorer, so that a process is there soon: what one takes beyond a task and an answer is its own
library.
"""

from __future__ import annotations

from dynpin.lab.residents.task import Answer, Task

__all__ = ["Answer", "Task"]
