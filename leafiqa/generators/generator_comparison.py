"""The result of comparing generators: converts to tables, JSON, Markdown and LaTeX, and answers CI's question."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leafiqa.arguments import finite_number
from leafiqa.errors import InputError
from leafiqa.files import check_output, write_whole
from leafiqa.generators.comparing import MetricResult, PairResult, PromptDifference
from leafiqa.generators.metric_agreement import MetricAgreement
from leafiqa.generators.samples import Samples
from leafiqa.generators.scoring_samples import ScoredSamples
from leafiqa.scoring.rows import csv_line
from leafiqa.tables import cell_of, safe_cell, to_frame, without_nan

# How the tables begin, so that one of ours is told from others before any work.
GENERATORS_HEAD, PAIRS_HEAD = b"metric,generator,rank_best,", b"metric,first,second,"
IMAGES_HEAD = b"image,generator,unit,"
# Prompts with the largest losses and gains that JSON holds of each pair.
_PROMPTS = 20


@dataclass
class GeneratorComparison:
    """Generators compared, by one metric or several.

    Attributes:
        metrics: a result for each metric, the first being the one that reports lead with.
        scored: pictures and scores.
        agreement: of each two metrics.
        remarks: what was paired, left out, failed, and what a reader must know.
        below: the threshold of which shares are told; None without one.
        inputs: what was read, so that no result is written onto it.
    """

    metrics: list[MetricResult]
    scored: ScoredSamples
    agreement: list[MetricAgreement] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    below: float | None = None
    inputs: list[Path] = field(default_factory=list)

    @property
    def samples(self) -> Samples:
        """The pictures, with what was paired."""
        return self.scored.samples

    @property
    def failed(self) -> dict[str, str]:
        """Why pictures have no score, by path."""
        return self.scored.failed()

    def __getitem__(self, metric: str) -> MetricResult:
        for result in self.metrics:
            if result.metric == metric:
                return result
        raise InputError(f"metric must be one of {', '.join(of.metric for of in self.metrics)}, got {metric!r}")

    def prompts(self) -> dict[str, str]:
        """Return the prompt's text of each unit."""
        return {sample.unit: sample.prompt for sample in reversed(self.samples.samples)}

    def worse_than(self, baseline: str, by: float = 0.0) -> list[PairResult]:
        """Return the pairs, by the first metric, in which a generator is significantly worse than the baseline.

        Args:
            baseline: the generator that the others are held against.
            by: only if the mean difference is larger than this.

        Raises:
            InputError: no such generator, one that shares no prompt with it, or `by` is no number from 0 on.
        """
        if baseline not in self.samples.generators:
            raise InputError(f"baseline must be one of {', '.join(self.samples.generators)}, got {baseline!r}")
        by = finite_number(by, "by", least=0)
        pairs = [self.metrics[0].pair(baseline, name) for name in self.samples.generators if name != baseline]
        compared = [pair for pair in pairs if pair is not None and pair.prompts]
        if len(compared) < len(pairs):
            known = {name for pair in compared for name in (pair.first, pair.second)} | {baseline}
            left = [name for name in self.samples.generators if name not in known]
            raise InputError(
                f"{', '.join(left)}: no prompt with a score in common with the baseline {baseline}, so nothing tells "
                "whether it is worse; give both the same prompts"
            )
        return [pair for pair in compared if pair.better == baseline and abs(pair.difference) > by]

    def generator_rows(self) -> list[dict[str, Any]]:
        """Return a flat row for each metric and generator, best first."""
        rows = []
        for result in self.metrics:
            for of in result.generators:
                low, high = result.ranks.get(of.name, (None, None))
                rows.append(
                    {
                        "metric": result.metric,
                        "generator": of.name,
                        "rank_best": low,
                        "rank_worst": high,
                        "mean": of.mean,
                        "mean_low": of.interval[0],
                        "mean_high": of.interval[1],
                        "median": of.median,
                        "worst_5_percent": of.worst,
                        "below": of.below,
                        "prompts": of.prompts,
                        "images": of.images,
                        "failed": of.failed,
                        "noise": of.noise,
                        "weights": result.weights,
                    }
                )
        return rows

    def pair_rows(self) -> list[dict[str, Any]]:
        """Return a flat row for each metric and pair of generators."""
        rows = []
        for result in self.metrics:
            for pair in result.pairs:
                rows.append(
                    {
                        "metric": result.metric,
                        "first": pair.first,
                        "second": pair.second,
                        "prompts": pair.prompts,
                        "difference": pair.difference,
                        "difference_low": pair.interval[0],
                        "difference_high": pair.interval[1],
                        "won": pair.won,
                        "effect": pair.effect,
                        "correlation": pair.correlation,
                        "p": pair.p,
                        "corrected_p": pair.corrected_p,
                        "decision": pair.verdict.decision,
                        "more_prompts": pair.verdict.more_prompts,
                        "verdict": pair.verdict.words,
                    }
                )
        return rows

    def image_rows(self) -> list[dict[str, Any]]:
        """Return a row for each picture: its prompt, and a column of scores for each metric."""
        rows = []
        for number, sample in enumerate(self.samples.samples):
            row: dict[str, Any] = {
                "image": sample.image,
                "generator": sample.generator,
                "unit": sample.unit,
                "prompt": sample.prompt,
                "seed": sample.seed,
            }
            rows.append(row | {name: float(scores[number]) for name, scores in self.scored.scores.items()})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single pictures, ready for JSON; undefined numbers are None."""
        prompts = self.prompts()

        def told(one: PromptDifference) -> dict[str, Any]:
            return {"unit": one.unit, "prompt": prompts[one.unit], **asdict(one), "difference": one.difference}

        metrics = []
        for result in self.metrics:
            pairs = []
            for pair in result.pairs:
                row = {name: value for name, value in vars(pair).items() if name != "prompt_differences"}
                row["verdict"] = asdict(pair.verdict)
                row["prompts_lost"] = [told(one) for one in pair.prompt_differences[:_PROMPTS] if one.difference < 0]
                gained = pair.prompt_differences[::-1][:_PROMPTS]
                row["prompts_won"] = [told(one) for one in gained if one.difference > 0]
                pairs.append(row)
            metrics.append(
                {
                    "metric": result.metric,
                    "weights": result.weights,
                    "margin": result.margin,
                    "generators": [asdict(of) for of in result.generators],
                    "pairs": pairs,
                    "ranks": result.ranks,
                    "alike": result.groups,
                }
            )
        everything = {
            "layout": self.samples.layout,
            "unit": "prompt",
            "interval": "95 %: Student's t below 30 prompts, symmetric studentised bootstrap over prompts from 30 on",
            "p": "two-sided sign flips of the prompts' differences; corrected for the number of pairs by Holm",
            "below": self.below,
            "metrics": metrics,
            "agreement": [asdict(of) for of in self.agreement],
            "unpaired": self.samples.unpaired(),
            "failed": self.failed,
            "remarks": self.remarks,
        }
        found: dict[str, Any] = without_nan(everything)
        return found

    def to_csv(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write `generator_rows()` as CSV.

        Raises:
            OutputError: the file exists already, is an input, or there is no such folder.
        """
        self._write(path, self.generator_rows(), overwrite)

    def pairs_to_csv(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write `pair_rows()` as CSV; see `to_csv`."""
        self._write(path, self.pair_rows(), overwrite)

    def scores_to_csv(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write `image_rows()` as CSV, which `leafiqa compare` reads again; names are relative to the file's folder."""
        from leafiqa.scoring.scores import name_in

        folder = os.path.dirname(os.path.abspath(path))
        rows = [row | {"image": name_in(row["image"], folder)} for row in self.image_rows()]
        self._write(path, rows, overwrite)

    def _write(self, path: str | os.PathLike[str], rows: Sequence[dict[str, Any]], overwrite: bool) -> None:
        header = csv_line([safe_cell(name) for name in rows[0]] if rows else ["nothing"])
        inputs: list[str | Path] = [*self.inputs, *(sample.image for sample in self.samples.samples)]
        check_output(path, inputs=inputs, overwrite=overwrite, is_ours=lambda head: head.startswith(header.encode()))
        write_whole(path, header + "".join(csv_line([cell_of(value) for value in row.values()]) for row in rows))

    def to_pandas(self) -> Any:
        """Return `generator_rows()` as a pandas DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        return to_frame(self.generator_rows())

    def to_markdown(self) -> str:
        """Return a table of generators, and one of pairs, in Markdown."""
        from leafiqa.generators.rendering import markdown

        return markdown(self)

    def to_latex(self) -> str:
        """Return a table of generators in LaTeX, for a paper; it needs the package booktabs."""
        from leafiqa.generators.rendering import latex

        return latex(self)

    def __str__(self) -> str:
        from leafiqa.generators.rendering import text

        return text(self)
