"""The diagnosis of a report: one model for the storage, the JSON, the OpenAPI document and the pages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from .verdicts import VERDICTS, Severity, VerdictName

__all__ = ["Certificate", "Diagnosis", "KnownPin", "RootKind", "Time"]

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
RootKind = Literal["own", "public", "retired", "unknown"]


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class Certificate(_Shown):
    """One certificate of a chain. What cannot be read is null or empty, and `fault` says why."""

    subject: str
    issuer: str
    serial: str = Field(description="Hexadecimal.")
    names: list[str] = Field(description="Its DNS names, at most 20.")
    more_names: int = Field(default=0, ge=0, description="How many more it has.")
    not_before: Time | None
    not_after: Time | None
    key: str = Field(description="The kind and size of its key.")
    pin: str | None
    matches: bool = Field(description="Whether its key is a known pin.")
    own_key: str | None = Field(description="The name of its key in the operator's inventory.")
    is_ca: bool
    self_issued: bool
    signed_by_next: bool | None = Field(description="Null for the last certificate, or if it cannot be checked.")
    fingerprint: str = Field(description="SHA-256 of the DER, hexadecimal.")
    fault: str


class KnownPin(_Shown):
    """A known pin, and the name of its key if it is known."""

    pin: str
    key: str | None


class Diagnosis(_Shown):
    """The verdict on a report, and the reasons for it.

    Title, severity, summary and advice come from the verdict (:data:`.VERDICTS`), never from the storage.
    """

    verdict: VerdictName
    reasons: list[str]
    notes: list[str] = Field(default=[], description="Strange facts that did not decide the verdict.")
    failing: int | None = Field(default=None, ge=0, description="The certificate of `validated` to look at first.")
    root: RootKind = Field(default="unknown", description="Where the validated chain ends.")
    report_only_inferred: bool = False
    known_pins: list[KnownPin] = []
    served: list[Certificate] = Field(default=[], description="The certificates that the server sent, the leaf first.")
    validated: list[Certificate] = Field(default=[], description="The path that the client built, the leaf first.")

    # mypy allows no decorator on a property: https://github.com/python/mypy/issues/14461
    @computed_field  # type: ignore[prop-decorator]
    @property
    def title(self) -> str:
        """The title of the verdict."""
        return VERDICTS[self.verdict].title

    @computed_field  # type: ignore[prop-decorator]
    @property
    def severity(self) -> Severity:
        """The severity of the verdict."""
        return VERDICTS[self.verdict].severity

    @computed_field  # type: ignore[prop-decorator]
    @property
    def summary(self) -> str:
        """The meaning of the verdict."""
        return VERDICTS[self.verdict].summary

    @computed_field  # type: ignore[prop-decorator]
    @property
    def advice(self) -> str:
        """What to do."""
        return VERDICTS[self.verdict].advice

    @property
    def issuer(self) -> str:
        """The issuer of the leaf, for filters."""
        chain = self.validated or self.served
        return chain[0].issuer if chain else ""

    @property
    def pins(self) -> tuple[tuple[str, str, str | None], ...]:
        """Each pin of the chains, its place, and the name of the CA if it is the key of a CA."""
        return tuple(
            (one.pin, place, one.subject if one.is_ca else None)
            for place, chain in (("served", self.served), ("validated", self.validated))
            for one in chain
            if one.pin is not None
        )

    @classmethod
    def read(cls, stored: str | None) -> Diagnosis | None:
        """Read a stored diagnosis; None if there is none, or it is damaged."""
        try:
            return cls.model_validate_json(stored or "null")
        except ValidationError:
            return None
