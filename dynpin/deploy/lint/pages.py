"""One page of documentation for each fault, from the source of the linter's messages.

``python -m dynpin.deploy.lint.pages FOLDER`` writes them; a Sphinx configuration calls :func:`write_pages`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import Finding, lint
from .example import example_circumstances, example_context, example_value
from .faults import SEVERITIES, Fault, catalogue

__all__ = ["fault_page", "index_page", "write_pages"]

_SEVERITY = {
    "info": "worth knowing",
    "warning": "noted by clients, and weak or harmful later",
    "error": "clients ignore the policy",
    "critical": "users are or will be locked out, or it is an attack",
}
_LINK = "https://www.rfc-editor.org/rfc/rfc7469#section-"


def fault_page(fault: Fault) -> str:
    """The page of one fault, in Markdown: what it is, an example, what clients do, what to do instead."""
    value = example_value(fault)
    found = _own_finding(fault, value)
    context = example_context(fault)
    about = {name: member for name, member in context.items() if name in fault.context}
    text = value or ""
    shown = text if len(text) <= 1000 else f"{text[:200]}… ({len(text)} characters)"
    lines = [
        f"# {fault.name}",
        "",
        f"**{fault.severity}**: {_SEVERITY[fault.severity]}. "
        f"Category: {fault.category}. Reason: [RFC 7469 §{fault.section}]({_LINK}{fault.section}).",
        "",
        found.message,
        "",
        "## An example",
        "",
        "```text",
        # One line for each directive, so that a reader sees all of it.
        "(no pinning header)" if value is None else f"{fault.field}: {shown}".replace("; ", ";\n  "),
        "```",
        "",
    ]
    if about:
        lines += ["in these circumstances:", "", "```json", json.dumps(about, indent=2), "```", ""]
    if found.span is not None and found.span != (0, len(text)) and len(text) <= 1000:
        lines += ["The part that is meant:", "", "```text", text[found.span[0] : found.span[1]], "```", ""]
    lines += ["## What clients do", "", found.effect, "", "## What to do", "", found.fix, ""]
    return "\n".join(lines)


def index_page() -> str:
    """The page that lists every fault by severity, worst first."""
    lines = ["# Faults", "", "What `dynpin lint` and `dynpin check` know, by severity.", ""]
    for severity in reversed(SEVERITIES):
        lines += [f"## {severity}", "", f"Severity {severity}: {_SEVERITY[severity]}.", ""]
        lines += [
            f"- [{fault.name}]({fault.name}.md): {fault.effect}"
            for fault in catalogue().values()
            if fault.severity == severity
        ]
        lines.append("")
    names = "\n".join(catalogue())
    return "\n".join(lines) + f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"


def write_pages(folder: Path) -> list[Path]:
    """Write ``index.md`` and a page for each fault into `folder`; files that are up to date are not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"index": index_page(), **{name: fault_page(fault) for name, fault in catalogue().items()}}
    written: list[Path] = []
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def _own_finding(fault: Fault, value: str | None) -> Finding:
    found = lint(value, name=fault.field, circumstances=example_circumstances(fault))
    return next(each for each in found if each.fault == fault.name)


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
