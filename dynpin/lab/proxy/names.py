"""Names with addresses that the user gives: ``--resolve``, as in curl."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from dynpin.hosts import canonical_host
from dynpin.lab.network import names_led

__all__ = ["Resolved", "resolved_names"]

_FORM = re.compile(r"(?P<host>[^:]+):(?P<port>\d{1,5}):(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[\d.]+))(?::(?P<to>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Resolved:
    """`host` and `port` are reached at `address` and `to_port`, whatever the name service says."""

    host: str
    port: int
    address: str
    to_port: int

    @classmethod
    def parse(cls, text: str) -> Resolved:
        """Read ``HOST:PORT:ADDRESS`` or ``HOST:PORT:ADDRESS:PORT``; an IPv6 address stands in brackets.

        Raises:
            ValueError: if it has another form, or if the address is invalid.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not of the form HOST:PORT:ADDRESS, such as bank.test:443:127.0.0.1:8443")
        address = str(ipaddress.ip_address(found["v6"] or found["v4"]))
        port, to_port = int(found["port"]), int(found["to"] or found["port"])
        if not (0 < port < 65536 and 0 < to_port < 65536):
            raise ValueError(f"{text!r} has a port outside 1 to 65535")
        return cls(canonical_host(found["host"]), port, address, to_port)


@contextlib.contextmanager
def resolved_names(answers: Iterable[Resolved]) -> Generator[None]:
    """Resolve these names accordingly in this process, and change no other name."""
    leads_to = {(answer.host, answer.port): (answer.address, answer.to_port) for answer in answers}

    def lead(name: str, port: Any) -> tuple[str, Any]:  # noqa: ANN401 - a number or a service, as it came
        return leads_to.get((name.rstrip(".").lower(), port), (name, port))

    with names_led(lead):
        yield
