"""The pictures of several generators, each with the prompt that it was made from."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from leafiqa.files import printable
from leafiqa.scoring.rows import Row

# So many names are written out in a remark; all of them are in the result.
_NAMED = 5


@dataclass(frozen=True)
class Sample:
    """One picture of one generator.

    Attributes:
        image: its path.
        generator: the generator's name.
        unit: what is compared between generators: the prompt, or the file name that stands for it.
        prompt: the prompt's text; that of `unit` where no other is known.
        seed: tells pictures of one prompt apart; may be empty.
        columns: scores that others computed, by column; None where a cell holds no number.
    """

    image: str
    generator: str
    unit: str
    prompt: str
    seed: str = ""
    columns: tuple[tuple[str, float | None], ...] = ()


@dataclass
class Samples:
    """The pictures of all generators.

    Attributes:
        samples: one a picture.
        layout: how they were read, in words.
        remarks: what was left out, and the like.
        scores: rows that `leafiqa score` wrote of these pictures, by path.
    """

    samples: list[Sample]
    layout: str
    remarks: list[str] = field(default_factory=list)
    scores: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def generators(self) -> list[str]:
        """Names of the generators, in the order that they were given in."""
        return list(dict.fromkeys(sample.generator for sample in self.samples))

    def units(self) -> dict[str, list[str]]:
        """Return for each unit the generators that have a picture of it."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for sample in self.samples:
            found[sample.unit][sample.generator] = None
        return {unit: list(generators) for unit, generators in found.items()}

    def unpaired(self) -> dict[str, list[str]]:
        """Return for each generator the units that no other generator has a picture of."""
        alone: dict[str, list[str]] = defaultdict(list)
        for unit, generators in self.units().items():
            if len(generators) == 1:
                alone[generators[0]].append(unit)
        return dict(alone)

    def pairing(self) -> list[str]:
        """Say what was paired with what, and what was left unpaired."""
        units, generators = self.units(), self.generators
        everywhere = sum(len(of) == len(generators) for of in units.values())
        counts = Counter((sample.generator, sample.unit) for sample in self.samples)
        most, least = max(counts.values(), default=0), min(counts.values(), default=0)
        each = f"{least}" if least == most else f"{least} to {most}"
        lines = [
            f"read as {self.layout}: {len(generators)} generators, {len(self.samples)} pictures, {len(units)} prompts, "
            f"{each} picture(s) a prompt; {everywhere} prompts are in all generators"
        ]
        for generator, alone in self.unpaired().items():
            lines.append(f"{generator}: {len(alone)} prompts that no other generator has, unpaired: {listed(alone)}")
        partly = [unit for unit, of in units.items() if 1 < len(of) < len(generators)]
        if partly:
            lines.append(
                f"{len(partly)} prompts are in several generators but not in all; each pair of generators is compared "
                f"on the prompts that both have: {listed(partly)}"
            )
        return lines


def normalised(text: str) -> str:
    """Return a prompt or name in one Unicode form and with single blanks, as different systems write it differently."""
    return re.sub(" +", " ", unicodedata.normalize("NFC", text))


def listed(names: Iterable[str]) -> str:
    """Return the first few of many names, and how many more there are."""
    names = list(names)
    shown = ", ".join(repr(printable(name)) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
