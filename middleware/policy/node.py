"""The address and port of one node of a site."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Node"]

_NODE = re.compile(r"(?P<address>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(?P<port>[0-9]{1,5})")


class Node(NamedTuple):
    """One node: its IP address or name, and its TCP port. As text, an IPv6 address is in brackets."""

    address: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Node:
        """Read ``10.0.0.5:443`` or ``[2001:db8::5]:443``.

        Raises:
            ValueError: if it is not a node; the message shows an example.
        """
        match = _NODE.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 65_536:
            raise ValueError(f'{text!r} is not a node: give address and port, such as "10.0.0.5:443"')
        return cls(match["address"].strip("[]"), int(match["port"]))

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
