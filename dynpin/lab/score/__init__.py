"""A score for any agent: RFC 7469 §2, rule by rule, on real TLS servers on loopback."""

from __future__ import annotations

from dynpin.lab.score.agent import Description, built_in, described
from dynpin.lab.score.page import score_page
from dynpin.lab.score.result import Score, Verdict
from dynpin.lab.score.rules import DATA, Rule, rules
from dynpin.lab.score.run import score

__all__ = ["DATA", "Description", "Rule", "Score", "Verdict", "built_in", "described", "rules", "score", "score_page"]
