"""What a comparison of two generators comes to, in words: better, no difference that matters, or cannot tell yet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from leafiqa.files import printable
from leafiqa.generators.paired_statistics import (
    LEVEL,
    least_p,
    least_prompts,
    prompts_to_bound,
    prompts_to_detect,
)

Decision = Literal["better", "worse", "no difference", "cannot tell"]


@dataclass(frozen=True)
class Verdict:
    """What is known of two generators.

    Attributes:
        decision: whether the first is better or worse than the second; "no difference" if the interval lies within the
            margin; else "cannot tell".
        words: the same in a sentence.
        more_prompts: about how many more prompts would tell, if the difference stays as it is; None where that
            question does not arise.
    """

    decision: Decision
    words: str
    more_prompts: int | None = None


def judge(
    first: str,
    second: str,
    *,
    n: int,
    difference: float,
    interval: tuple[float, float],
    deviation: float,
    p: float,
    margin: float,
    pairs: int,
) -> Verdict:
    """Put a paired comparison into words.

    Args:
        first: one generator's name.
        second: the other's.
        n: prompts that both have.
        difference: mean of first minus second.
        interval: its 95 % interval.
        deviation: standard deviation of the differences over prompts.
        p: corrected for the number of pairs.
        margin: the largest difference that does not matter, in units of the score.
        pairs: how many pairs are compared.
    """
    first, second = printable(first), printable(second)
    # A few prompts that happen to agree bound nothing.
    bounded = (
        n >= least_prompts(1) and all(math.isfinite(end) for end in interval) and max(map(abs, interval)) <= margin
    )
    if n == 0:
        return Verdict("cannot tell", f"{first} and {second} share no prompt: not compared")
    if n == 1 and difference != 0:
        enough = least_prompts(pairs)
        return Verdict(
            "cannot tell", f"one prompt tells nothing about others: at least {enough} are needed", enough - 1
        )
    if n and difference == 0 and deviation == 0:
        told = f"every prompt scores exactly the same in {first} and {second}: are they the same pictures?"
        return Verdict("no difference", told)
    if math.isfinite(p) and p < LEVEL:
        better, worse = (first, second) if difference > 0 else (second, first)
        small = f", though by less than {margin:.2g}" if bounded else ""
        return Verdict("better" if difference > 0 else "worse", f"{better} is better than {worse}{small}")
    if bounded:
        return Verdict("no difference", f"no difference larger than {margin:.2g} between {first} and {second}")
    enough = least_prompts(pairs)
    if least_p(n) >= LEVEL:
        return Verdict(
            "cannot tell",
            f"cannot tell with {n} prompts: p cannot fall below {least_p(n):.2g} whatever their scores; at least "
            f"{enough} prompts are needed",
            enough - n,
        )
    if least_p(n) * pairs >= LEVEL:
        return Verdict(
            "cannot tell",
            f"cannot tell with {n} prompts for {pairs} pairs: at least {enough} prompts are needed",
            enough - n,
        )
    needed = [
        count
        for count in (
            prompts_to_detect(difference, deviation, LEVEL / pairs),
            prompts_to_bound(difference, deviation, margin),
        )
        if count is not None
    ]
    if not needed:
        return Verdict("cannot tell", "cannot tell yet")
    more = max(1, min(needed) - n)
    return Verdict(
        "cannot tell",
        f"cannot tell yet: about {_rounded(more)} more {'prompt' if more == 1 else 'prompts'} would",
        _rounded(more),
    )


def _rounded(count: int) -> int:
    """Return a count to two digits: it is an estimate."""
    digits = max(0, len(str(count)) - 2)
    return round(count, -digits) if digits else count
