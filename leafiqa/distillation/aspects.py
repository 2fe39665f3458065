"""Teach a distilled student why, where and how sure: from the evidence's defects, and from damage of its own making."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from leafiqa.distillation.config import Config
from leafiqa.distillation.data import SourceEvidence, resized
from leafiqa.distillation.eyes import Eyes
from leafiqa.errors import ImageError
from leafiqa.evidence.reliability import severities, targets
from leafiqa.images.decoding import decode
from leafiqa.images.loading import load_ahead
from leafiqa.model.preprocess import Preprocess
from leafiqa.model.student import Student
from leafiqa.training.aspect_fits import (
    LocalFit,
    cell_weights,
    fit_deviation,
    fit_severities,
    same_deviation,
)
from leafiqa.training.degradations.arrays import LEVELS, Pixels
from leafiqa.training.degradations.ladders import DEGRADATIONS, degrade

# A defect that the evidence names in fewer pictures is not learned.
_NAMED = 20
# Levels of a degradation as severities of its defect: the first is slight, the last severe.
_SEVERITY = (0.0, 0.7, 1.5, 2.2, 3.0, 3.0)
# Pictures whose local features decide how these are standardised.
_STANDARD = 60
# Held-out pictures that a standard error of its own for each picture takes; with fewer all have the same.
_HELD_OUT = 50
# Camera pictures are made smaller before they are degraded: degrading a dozen megapixels takes seconds.
_LARGEST = 768


class HeldOut(NamedTuple):
    """What a student makes of a picture that it did not learn from.

    Attributes:
        logit: the student's, `()`.
        features: `(F,)` standardised.
        score: the teacher's, `()` in [0, 1].
    """

    logit: Tensor
    features: Tensor
    score: Tensor


def learn_aspects(
    config: Config,
    student: Student,
    sources: Sequence[SourceEvidence],
    log: Callable[[str], None],
    progress: Callable[[int, int], None],
    elsewhere: Sequence[HeldOut] = (),
) -> dict[str, Any]:
    """Give a finished student aspects, learned on pictures of the run; its score does not change.

    Severities come from the defects that the evidence names, and from degradations that have a defect's name; the map
    from pictures of which a part was degraded; the standard error from held-out pictures, where there are enough.

    Args:
        config: the run; `aspects` is the number of pictures to learn from.
        student: the student, in evaluation mode.
        sources: the evidence of each of the run's sources, in their order.
        log: takes lines for the reader.
        progress: called with how many pictures are done, and how many there are.
        elsewhere: further held-out pictures, for the standard error: whoever has left out whole origins of pictures
            knows better how far off the student is on those of others.

    Returns:
        What the card is to tell of it; nothing where no picture could be read.
    """
    rng = np.random.default_rng([config.seed, 18])
    named = [severities(source.evidence) for source in sources]
    names = defect_names(named)
    chosen = _choose(config, sources, rng)
    eyes = Eyes(student, config.look)
    with torch.random.fork_rng(devices=[]):  # whatever was drawn before, a run's aspects begin alike
        torch.manual_seed(config.seed)
        aspects = student.add_aspects(names).requires_grad_(True).cpu()

    def read(job: tuple[int, str]) -> Pixels | None:
        try:
            return _as_bytes(decode(config.sources[job[0]].images / job[1]).pixels)
        except ImageError:
            return None  # training has named it already

    early = [pixels for pixels in map(read, chosen[:_STANDARD]) if pixels is not None]
    if not early:
        student.aspects = None
        return {}
    stages = [eyes.see(eyes.resize(pixels)) for pixels in early]
    locals_ = [aspects.local_features(found, _size(found, aspects.reductions)).detach() for found, _, _ in stages]
    cells = torch.cat([local.flatten(2) for local in locals_], dim=2)[0]
    aspects.local_mean.copy_(cells.mean(1))
    aspects.local_std.copy_(cells.std(1).clamp(min=1e-3))

    generator = torch.Generator().manual_seed(config.seed)
    where = LocalFit(aspects, len(chosen), generator)
    rows: list[Tensor] = []
    known: list[Tensor] = []
    off: list[tuple[float, float]] = []
    scores = [targets(source.evidence) for source in sources]
    for count, ((number, name), pixels) in enumerate(zip(chosen, load_ahead(read, chosen)), 1):
        progress(count, len(chosen))
        if pixels is None:
            continue
        pixels = _bounded(pixels)
        kind = list(DEGRADATIONS)[int(rng.integers(len(DEGRADATIONS)))]
        level = float(rng.uniform(1, LEVELS))
        damaged = degrade(pixels, kind, level, int(rng.integers(2**31)))
        mask = _region(pixels.shape[0], pixels.shape[1], rng)
        mixed = (pixels + mask[..., None] * (damaged.astype(np.float32) - pixels)).round().astype(np.uint8)
        pictures = torch.cat([eyes.resize(one) for one in (pixels, damaged, mixed)])
        stages_of, standard, logits = eyes.see(pictures)
        as_it_is = _row(named[number].get(name), names)
        if as_it_is.isfinite().any():
            rows.append(standard[0])
            known.append(as_it_is)
        defect = DEGRADATIONS[kind].defect
        if defect is not None:
            spoilt = as_it_is.clone()
            at = names.index(defect)
            shown = float(np.interp(level, range(LEVELS + 1), _SEVERITY))
            spoilt[at] = max(shown, float(spoilt[at].nan_to_num()))
            rows.append(standard[1])
            known.append(spoilt)
        if name in scores[number]:
            off.append((float(logits[0]), scores[number][name].score))
        size = (pictures.shape[2], pictures.shape[3])
        local = aspects.local_features([stage[2:] for stage in stages_of], size)[0].detach()
        grid = (local.shape[1], local.shape[2])
        share = functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None, None], grid)[0, 0]
        apart = torch.where(share > 0.5, logits[1], logits[0]) - logits[2]
        where.see(local, apart, cell_weights(share))
    where.finish()
    fit_severities(aspects, torch.stack(rows), torch.stack(known))
    held_out = [*_held_out(config, sources, eyes), *elsewhere]
    if len(held_out) >= _HELD_OUT:
        logits, standard, wanted = (torch.stack(of) for of in zip(*held_out))
        with torch.no_grad():
            seen, shares = aspects.severities(standard), student.shares(standard.to(student.feature_mean.device)).cpu()
        fit_deviation(aspects, logits, seen, shares, wanted)
        of_errors = f"from {len(held_out)} held-out pictures"
    else:
        own = [(float(logit), float(score)) for logit, _, score in held_out] or off
        same_deviation(aspects, torch.tensor([row[0] for row in own]), torch.tensor([row[1] for row in own]))
        of_errors = f"the same for all, from {len(own)} {'held-out' if held_out else 'training'} pictures"
    aspects.requires_grad_(False)
    aspects.to(student.feature_mean.device)
    log(f"aspects: {len(names)} defects from {len(rows)} pictures, map from {len(chosen)}, errors {of_errors}")
    return {"pictures": len(chosen), "defects_from": len(rows), "standard_errors": of_errors}


def defect_names(named: Sequence[dict[str, dict[str, float]]]) -> tuple[str, ...]:
    """Return the defects to learn: those that degradations cause, and those that the evidence names often enough.

    Args:
        named: of each source, the severities of each image's defects by name.
    """
    counts: dict[str, int] = {}
    for source in named:
        for defects in source.values():
            for name, severity in defects.items():
                counts[name] = counts.get(name, 0) + (severity > 0)
    caused = {one.defect for one in DEGRADATIONS.values() if one.defect is not None}
    return tuple(sorted(caused | {name for name, count in counts.items() if count >= _NAMED}))


def _choose(config: Config, sources: Sequence[SourceEvidence], rng: np.random.Generator) -> list[tuple[int, str]]:
    """Draw pictures, of each source alike while it has any, as (number of the source, name)."""
    orders = []
    for number, source in enumerate(sources):
        names = sorted(source.evidence.images)
        orders.append([(number, names[i]) for i in rng.permutation(len(names))])
    drawn: list[tuple[int, str]] = []
    for place in range(max(map(len, orders))):
        drawn += [order[place] for order in orders if place < len(order)]
    return drawn[: config.aspects]


def _row(defects: dict[str, float] | None, names: Sequence[str]) -> Tensor:
    known = defects or {}
    return torch.tensor([known.get(name, float("nan")) for name in names], dtype=torch.float32)


def _size(stages: Sequence[Tensor], reductions: Sequence[int]) -> tuple[int, int]:
    return stages[0].shape[2] * reductions[0], stages[0].shape[3] * reductions[0]


def _as_bytes(pixels: NDArray[Any]) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else (pixels * 255).round().astype(np.uint8)


def _bounded(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    if height * width <= _LARGEST**2:
        return pixels
    return resized(pixels, Preprocess(area=_LARGEST**2)).permute(1, 2, 0).numpy()


def _region(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a part of a picture, `(H, W)` in [0, 1]: a rectangle or an ellipse, half of the time with soft edges."""
    high, wide = height * rng.uniform(0.2, 0.6), width * rng.uniform(0.2, 0.6)
    top, left = rng.uniform(0, height - high), rng.uniform(0, width - wide)
    rows, columns = np.mgrid[:height, :width]
    across = np.abs((rows + 0.5 - top) / high - 0.5), np.abs((columns + 0.5 - left) / wide - 0.5)
    inside = np.hypot(*across) <= 0.5 if rng.integers(2) else np.maximum(*across) <= 0.5
    mask = inside.astype(np.float32)
    return ndimage.gaussian_filter(mask, 0.02 * min(height, width)) if rng.integers(2) else mask


def _held_out(config: Config, sources: Sequence[SourceEvidence], eyes: Eyes) -> list[HeldOut]:
    """Return what the student makes of each held-out picture that can be read."""
    found = []
    jobs = [
        (source.images / name, score)
        for source, of in zip(config.sources, sources)
        for name, score in sorted(of.held_out.items())
    ]

    def read(job: tuple[Any, float]) -> Tensor | None:
        try:
            return eyes.resize(_as_bytes(decode(job[0]).pixels))
        except ImageError:
            return None

    for (_, score), picture in zip(jobs, load_ahead(read, jobs)):
        if picture is not None:
            _, standard, logits = eyes.see(picture)
            found.append(HeldOut(logits[0], standard[0], torch.tensor(score)))
    return found
