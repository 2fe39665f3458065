"""From answers to a table of MOS: the plain mean beside the rater model, and what is to be said of each rater."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from leafiqa.errors import InputError
from leafiqa.evaluation.measures import spearman
from leafiqa.files import StrPath, check_output, printable, write_whole
from leafiqa.rating.answers import HIGH, LOW, Answer, Answers
from leafiqa.rating.rater_model import PanelEstimate, RaterEstimate, estimate
from leafiqa.scoring.rows import csv_line
from leafiqa.scoring.scores import name_in
from leafiqa.tables import safe_cell, to_frame, without_nan

_HEADER = ["image", "mos", "mos_se", "mos_std", "n", "mean", "mean_low", "mean_high", "comparisons"]
# A rater is reported as careless from these on: inconsistency as a multiple of the other raters' median, ratings that
# hardly go with the others', and repeats that differ by this many levels on average.
_NOISY, _ALONE, _FORGETFUL = 1.8, 0.3, 1.2
_FEW = 8


def is_mos(head: bytes) -> bool:
    """Tell whether a file begins as a table that `Panel.to_csv` wrote."""
    return head.startswith(csv_line(_HEADER).rstrip("\n").encode())


@dataclass(frozen=True)
class PictureMos:
    """One picture.

    Attributes:
        image: its path.
        mos: quality by the rater model.
        mos_se: its standard error.
        n: raters who rated it.
        mean: their plain mean; NaN without ratings.
        interval: the mean's 95 % interval (Student's t); NaN below two ratings.
        std: standard deviation of the ratings; NaN below two.
        comparisons: in which it stood.
    """

    image: str
    mos: float
    mos_se: float
    n: int
    mean: float
    interval: tuple[float, float]
    std: float
    comparisons: int


@dataclass(frozen=True)
class RaterReport:
    """One rater.

    Attributes:
        name: the rater.
        ratings: that count.
        comparisons: that count.
        skipped: pictures skipped.
        bias: in levels; positive rates higher than others.
        inconsistency: in levels.
        repeats: pictures rated again, unannounced.
        repeat_difference: mean absolute difference between the two ratings; NaN without.
        agreement: SRCC with the mean of the others on the same pictures; NaN without.
        seconds: median time of an answer; NaN where not known.
        remarks: what makes one doubt their answers; they count all the same, with the weight that the model gives.
    """

    name: str
    ratings: int
    comparisons: int
    skipped: int
    bias: float
    inconsistency: float
    repeats: int
    repeat_difference: float
    agreement: float
    seconds: float
    remarks: list[str] = field(default_factory=list)


@dataclass
class Panel:
    """What a panel of raters says of some pictures.

    Attributes:
        pictures: in the order of their first answers.
        raters: likewise.
        model: the estimate behind `mos`.
        answers: the answers themselves.
        problems: answers that could not be used.
        stands_for: how many candidates each picture stands for, by path, where that is known: ratings are asked for
            where they teach most, and `calibrate` weights what it expects by this.
    """

    pictures: list[PictureMos]
    raters: list[RaterReport]
    model: PanelEstimate
    answers: Answers
    problems: list[str] = field(default_factory=list)
    stands_for: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pictures)

    def to_dict(self) -> dict[str, Any]:
        """Return pictures and raters, ready for JSON; undefined numbers are None."""
        found = {
            "pictures": [asdict(picture) for picture in self.pictures],
            "raters": [asdict(rater) for rater in self.raters],
            "step": self.model.step,
            "problems": self.problems,
        }
        plain: dict[str, Any] = without_nan(found)
        return plain

    def to_csv(self, path: StrPath, *, overwrite: bool = False) -> None:
        """Write a table for `leafiqa calibrate --mos`: image, mos, mos_se, mos_std, n, and the plain mean beside.

        Raises:
            OutputError: the file exists already, is a picture, or there is no such folder.
        """
        header = csv_line([*_HEADER, *(["stands_for"] if self.stands_for else [])])
        images = [picture.image for picture in self.pictures]
        check_output(path, inputs=images, overwrite=overwrite, is_ours=is_mos)
        folder = os.path.dirname(os.path.abspath(path))
        lines = [header]
        for of in self.pictures:
            numbers = [of.mos, of.mos_se, of.std, of.n, of.mean, *of.interval, of.comparisons]
            numbers += [self.stands_for.get(of.image, 1.0)] if self.stands_for else []
            lines.append(csv_line([safe_cell(name_in(of.image, folder)), *map(_cell, numbers)]))
        write_whole(path, "".join(lines))

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame, a row for each picture.

        Raises:
            InputError: pandas is not installed.
        """
        return to_frame([asdict(picture) for picture in self.pictures])

    def __str__(self) -> str:
        lines = [f"{len(self.pictures)} pictures, {len(self.raters)} rater(s)"]
        for of in self.raters:
            repeated = f", repeats differ by {of.repeat_difference:.2f}" if of.repeats else ""
            agreed = f", SRCC with the others {of.agreement:.2f}" if math.isfinite(of.agreement) else ""
            lines.append(
                f"{printable(of.name)}: {of.ratings} ratings, {of.comparisons} comparisons, {of.skipped} skipped, bias "
                f"{of.bias:+.2f}, inconsistency {of.inconsistency:.2f}{repeated}{agreed}"
            )
            lines += [f"  {remark}" for remark in of.remarks]
        if self.pictures:
            errors = [of.mos_se for of in self.pictures]
            lines.append(
                f"standard error of a picture's MOS: median {np.median(errors):.2f}, largest {max(errors):.2f}"
            )
        return "\n".join(lines)


def summarise(answers: Answers) -> Panel:
    """Return what a panel says.

    Args:
        answers: as `read_answers` returns them.

    Raises:
        InputError: no answer counts.
    """
    ratings, comparisons = answers.ratings(repeats=True), answers.comparisons()
    images = list(
        dict.fromkeys([a.image for a in ratings] + [name for a in comparisons for name in (a.image, a.other)])
    )
    if not images:
        raise InputError("no answer counts: there are no ratings and no comparisons but warm-up ones")
    # What one rater says twice of one picture is one opinion: their mean.
    opinions = _opinions(ratings)
    model = estimate(images, opinions, comparisons)
    by_image: dict[str, list[float]] = defaultdict(list)
    for answer in opinions:
        by_image[answer.image].append(answer.score)
    compared: dict[str, int] = defaultdict(int)
    for answer in comparisons:
        compared[answer.image] += 1
        compared[answer.other] += 1
    pictures = []
    for image, mos, error in zip(images, model.quality.tolist(), model.error.tolist()):
        scores = np.array(by_image[image], dtype=np.float64)
        n = len(scores)
        mean, std = (float(scores.mean()) if n else math.nan), (float(scores.std(ddof=1)) if n > 1 else math.nan)
        half = float(stats.t.ppf(0.975, n - 1)) * std / math.sqrt(n) if n > 1 else math.nan
        # Biases may carry an estimate past the ends of the scale, which nobody could answer.
        mos = min(max(mos, LOW), HIGH)
        pictures.append(PictureMos(image, mos, error, n, mean, (mean - half, mean + half), std, compared[image]))
    return Panel(pictures, _raters(answers, model), model, answers, list(answers.problems))


def _opinions(ratings: Sequence[Answer]) -> list[Answer]:
    """Return one rating for each rater and picture, the mean of theirs."""
    found: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in ratings:
        found[(answer.rater, answer.image)].append(answer)
    return [replace(of[0], value=repr(sum(one.score for one in of) / len(of))) for of in found.values()]


def _raters(answers: Answers, model: PanelEstimate) -> list[RaterReport]:
    seen = {of.name: of for of in model.raters}
    first: dict[str, dict[str, float]] = defaultdict(dict)
    repeated: dict[str, list[float]] = defaultdict(list)
    for answer in answers.ratings(repeats=True):
        if answer.phase == "repeat" and answer.image in first[answer.rater]:
            repeated[answer.rater].append(abs(answer.score - first[answer.rater][answer.image]))
        else:
            first[answer.rater][answer.image] = answer.score
    reports = []
    for name in answers.raters:
        own = [answer for answer in answers.answers if answer.rater == name]
        times = [answer.seconds for answer in own if math.isfinite(answer.seconds)]
        differences = repeated[name]
        of = seen.get(name)
        report = RaterReport(
            name=name,
            ratings=0 if of is None else of.ratings,
            comparisons=sum(a.kind == "comparison" and a.phase != "warm-up" for a in own),
            skipped=sum(answer.kind == "skip" for answer in own),
            bias=math.nan if of is None else of.bias,
            inconsistency=math.nan if of is None else of.inconsistency,
            repeats=len(differences),
            repeat_difference=float(np.mean(differences)) if differences else math.nan,
            agreement=_with_others(name, first, seen),
            seconds=float(np.median(times)) if times else math.nan,
        )
        reports.append(report)
    for report in reports:
        others = [of.inconsistency for of in reports if of is not report and math.isfinite(of.inconsistency)]
        report.remarks.extend(_doubts(report, others, list(first[report.name].values())))
    return reports


def _with_others(name: str, first: dict[str, dict[str, float]], seen: dict[str, RaterEstimate]) -> float:
    """Return the SRCC of a rater with the mean of the others, consistent ones counting more, on shared pictures."""
    own, others = [], []
    for image, score in first[name].items():
        rest = [(of[image], rater) for rater, of in first.items() if rater != name and image in of]
        if rest:
            own.append(score)
            weights = [1 / seen[rater].inconsistency ** 2 if rater in seen else 1.0 for _, rater in rest]
            others.append(float(np.average([value for value, _ in rest], weights=weights)))
    return spearman(np.array(own), np.array(others)) if len(own) >= _FEW else math.nan


def _doubts(report: RaterReport, others: Sequence[float], scores: Sequence[float]) -> list[str]:
    """Return what makes one doubt a rater."""
    found = []
    if others and report.inconsistency > _NOISY * float(np.median(others)):
        found.append(
            f"perhaps careless: inconsistency {report.inconsistency:.2f}, the others' median {np.median(others):.2f}"
        )
    if report.agreement < _ALONE:
        found.append(f"perhaps careless: SRCC with the others is {report.agreement:.2f}")
    if report.repeats >= 3 and report.repeat_difference > _FORGETFUL:
        found.append(f"perhaps careless: repeats differ by {report.repeat_difference:.1f} levels on average")
    if len(scores) >= _FEW and np.ptp(scores) == 0:
        found.append("perhaps careless: the same rating for every picture")
    return found


def _cell(value: float) -> str:
    return "" if not math.isfinite(value) else f"{value:.4f}" if isinstance(value, float) else str(value)


def as_answers(rows: Sequence[tuple[str, str, float]]) -> list[Answer]:
    """Return ratings given as rater, image and score."""
    return [Answer(i + 1, rater, "rating", image, value=f"{score:g}") for i, (rater, image, score) in enumerate(rows)]
