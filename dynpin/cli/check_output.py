"""The result of `dynpin check`: for people, as JSON, and as an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynpin.cli.lint import Threshold, as_dict, fails
from dynpin.cli.printing import say
from dynpin.deploy.check import Checked
from dynpin.deploy.lint import HeaderField
from dynpin.deploy.live_fields import node_name
from dynpin.deploy.reach import LIST_URI
from dynpin.pins import chain_pins
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.deploy.recovery import PublishedList

__all__ = ["checked_as_json", "has_finding", "responses_as_json", "show_checked"]


def has_finding(checked: Checked, fail_on: Threshold) -> bool:
    """Whether the exit code is 1: for a fault of this severity or a higher one, a remark, or a missing header."""
    return bool(not checked.has_header or checked.remarks or fails([found for _, found in checked.results], fail_on))


def checked_as_json(checked: Checked) -> dict[str, object]:
    """The result of a check, as JSON."""
    return {
        "host": checked.site.host,
        "port": checked.site.port,
        "silent": list(checked.silent),
        "findings": [as_dict(each, found) for each, found in checked.results],
        "sends_header": checked.has_header,
        "lacking": [str(pin) for pin in checked.lacking],
        "not_deployed": checked.not_deployed,
        "unseen": list(checked.unseen),
        "remarks": list(checked.remarks),
        "list": None if checked.signed_list is None else _list_as_json(checked.signed_list),
    }


def responses_as_json(checked: Checked) -> dict[str, object]:
    """What each node has answered, as JSON."""
    return {
        "responses": [
            {
                "address": each.address,
                "port": each.port,
                "scheme": each.scheme,
                "path": each.path,
                "status": each.status,
                "verified": each.is_verified,
                "failure": each.failure,
                "validated_chain": [str(pin) for pin in chain_pins(each.validated)],
                "served_chain": [str(pin) for pin in chain_pins(each.served)],
                "headers": {name: value for name, value in each.headers if name.lower().startswith("public-key-pins")},
            }
            for each in checked.look.responses
        ]
    }


def show_checked(checked: Checked) -> None:
    """Print the result of a check, for people."""
    for each in checked.look.responses:
        has = any(name.lower().startswith("public-key-pins") for name, _ in each.headers)
        chain = "" if each.is_verified or each.scheme == "http" else "  the chain does not verify"
        line = f"{node_name(checked.site, each):<16} {each.scheme:<5} {each.status} {each.path}"
        say(f"{line}  {'header' if has else 'no header'}{chain}")
    if checked.signed_list is not None:
        ends = ", ".join(f"{each.role} until {rfc3339(each.expires_at)}" for each in checked.signed_list.expiries)
        say(f"signed list {checked.signed_list.version} at {checked.signed_list.place}: {ends or 'none is believed'}")
    elif any(each.header is not None and each.header.recovery is not None for each in checked.fields):
        say(f"the signed list of the header was not checked: --list {LIST_URI} shows when it expires")
    say("")
    # Each field once, for the first node that sends it.
    first = {_said(each): each for each in reversed(checked.fields)}
    shown = [each for each in checked.fields if first[_said(each)] is each]
    from dynpin.cli.findings import show_findings  # noqa: PLC0415 - only the text output needs it

    show_findings(shown, [(first[_said(each)], found) for each, found in checked.results], len(checked.remarks))


def _list_as_json(listed: PublishedList) -> dict[str, object]:
    return {
        "place": listed.place,
        "version": listed.version,
        "expires_at": {each.role: rfc3339(each.expires_at) for each in listed.expiries},
    }


def _said(each: HeaderField) -> tuple[str, str]:
    """The key of a field: its kind and value; if it is empty, its place."""
    return each.name, each.source if each.value is None else each.value
