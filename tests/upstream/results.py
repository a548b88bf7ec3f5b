# SPDX-License-Identifier: BSD-2-Clause
"""What a case of a suite came to."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    PASS = "PASS"  # noqa: S105 (no password)
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True)
class Result:
    case: str  # "" for a whole suite
    verdict: Verdict
    reason: str = ""


def skip(reason: str) -> Result:
    return Result("", Verdict.SKIP, reason)


def judged(case: str, failure: str) -> Result:
    """Passed if there is no failure to report."""
    return Result(case, Verdict.FAIL if failure else Verdict.PASS, failure)


def last_said(lines: list[str]) -> str:
    """The last line that says something, for a reason."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")
