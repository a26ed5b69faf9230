"""A story in steps: what happened, to whom, why it is right, and whether it did happen."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Step"]


@dataclass
class Step:
    """One step of a story.

    Attributes:
        title: what the step is about.
        why: why what happened is right, with the section of RFC 7469 that says so.
        happened: each thing that happened, in words, and whether it happened as it must.
        facts: the same as data.
    """

    title: str
    why: str
    happened: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])
    facts: dict[str, object] = field(default_factory=dict[str, object])

    def tell(self, text: str, as_it_must: bool = True) -> None:
        """Add one thing that happened; `as_it_must` tells whether the story needs it to be so and it was."""
        self.happened.append((text, as_it_must))

    @property
    def ok(self) -> bool:
        """Whether everything happened as it must, and something did."""
        return bool(self.happened) and all(right for _, right in self.happened)

    def as_json(self, number: int) -> dict[str, object]:
        """The step as a JSON object."""
        return {
            "step": number,
            "title": self.title,
            "ok": self.ok,
            "happened": [{"text": text, "as_it_must": right} for text, right in self.happened],
            "why": self.why,
            "facts": self.facts,
        }
