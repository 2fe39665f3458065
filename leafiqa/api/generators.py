"""Verbs for generated pictures: compare generators, take the best of several pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafiqa.api.arguments import Paths, Progress, as_columns
from leafiqa.arguments import finite_number, whole_number
from leafiqa.errors import InputError, OutputError

if TYPE_CHECKING:
    import torch

    from leafiqa.generators.best_pictures import BestPictures
    from leafiqa.generators.generator_comparison import GeneratorComparison
    from leafiqa.generators.places import Generators
    from leafiqa.generators.score_cache import ScoreCache
    from leafiqa.rating.panel import Panel
    from leafiqa.scoring.scores import Scores


def compare(
    generators: Generators,
    metric: Any = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    columns: Sequence[str] = (),
    layout: str | None = None,
    below: float | None = None,
    margin: float | None = None,
    cache: str | os.PathLike[str] | bool | None = True,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> GeneratorComparison:
    """Compare image generators: which is better, how sure that is, and on which prompts.

    The prompt is the unit: pictures of one prompt are averaged, and generators are compared prompt by prompt.

    Args:
        generators: `{"sdxl": "out/sdxl", "flux": "out/flux"}`; a value may be a list of places, which are further seeds
            of one generator. A place is a folder, a table or JSON lines with `image, prompt` (and `seed`), or a file
            that `leafiqa score` wrote. Or one folder that holds a folder for each generator; or one table that also
            has a column `generator`.
        metric: a name, a metric or calibration, a metric of pyiqa or torchmetrics, a callable from a path to a number
            (higher is better), or a list of these; the first one leads. None means `leaf`, or what files of scores
            hold.
        weights: a student in some place, instead of `metric`; see `create_metric`.
        columns: columns of the tables with scores that others computed, which are compared in the same way.
        layout: how prompts are told from names: "names", "numbered", "folders" or "geneval"; None recognises it. See
            `leafiqa.generators.layouts`.
        below: also tell the share of pictures that score below this.
        margin: the largest difference of means that does not matter, in units of the score; None takes a tenth of the
            standard deviation of all scores.
        cache: where scores are kept by content, so that no picture is scored twice by the same weights: True means the
            user's cache folder (or `LEAFIQA_CACHE`), a path another file, None or False no cache.
        device: where metrics given by name compute.
        batch_size: pictures scored together on an accelerator.
        workers: see `leafiqa.score`.
        seed: seeds bootstrap and sign flips.
        progress: called with how many scores are done, and how many there are.

    Returns:
        `GeneratorComparison`: prints as a report; `.metrics[0].generators`, `.metrics[0].pairs[0].verdict.words`,
        `.worse_than("sdxl")`, `.to_dict()`, `.to_csv(path)`, `.to_markdown()`, `.to_latex()`, `.to_pandas()`.

    Raises:
        InputError: fewer than two generators, no shared prompt, a layout that can be read in two ways, or an argument
            that is none of the above.
        UnknownModelError, WeightsError: see `create_metric`.

    Example:
        >>> found = leafiqa.compare({"sdxl": "out/sdxl", "flux": "out/flux"})
        >>> print(found)
    """
    from leafiqa.generators.comparing import compare_scores
    from leafiqa.generators.generator_comparison import GeneratorComparison
    from leafiqa.generators.metric_agreement import agreements, standing_alone
    from leafiqa.generators.places import as_places, gather_samples
    from leafiqa.generators.scoring_samples import score_samples

    whole_number(seed, "seed", 0)
    columns = as_columns(columns)
    below = None if below is None else finite_number(below, "below")
    margin = None if margin is None else finite_number(margin, "margin", least=0)
    places = as_places(generators)
    samples = gather_samples(places, layout=layout, columns=columns)
    with _opened(cache) as store:
        scored = score_samples(
            samples,
            _metrics(metric, weights, device),
            columns=columns,
            cache=store,
            device=device,
            batch_size=batch_size,
            workers=workers,
            progress=progress,
        )
    found = GeneratorComparison(
        [
            compare_scores(
                name, samples.samples, scores, weights=scored.weights[name], below=below, margin=margin, seed=seed
            )
            for name, scores in scored.scores.items()
        ],
        scored,
        below=below,
        inputs=[Path(place) for _, place in places if Path(place).is_file()],
    )
    _need_pairs(found)
    found.agreement = agreements(found.metrics, scored.scores)
    found.remarks = [*samples.pairing(), *samples.remarks, *scored.remarks]
    if scored.reused:
        found.remarks.append(f"{scored.reused} scores were known already")
    for result in found.metrics:
        found.remarks += [
            f"{of.name}: {of.failed} of {of.failed + of.images} pictures have no score from {result.metric}"
            for of in result.generators
            if of.failed
        ]
    found.remarks += standing_alone(found.agreement)
    return found


def best(
    images: Generators,
    metric: Any = None,
    *,
    per: str = "prompt",
    n: int = 1,
    weights: str | os.PathLike[str] | None = None,
    layout: str | None = None,
    cache: str | os.PathLike[str] | bool | None = True,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> BestPictures:
    """Choose the best of several pictures of each prompt. What is shown of them must be called best of N.

    Args:
        images: a generator's folder, table or file of scores; several as for `compare`.
        metric: see `compare`.
        per: "prompt", "folder" (that a picture lies in) or "all".
        n: how many of each.
        weights: see `create_metric`.
        layout: see `compare`.
        cache: see `compare`.
        device: see `compare`.
        batch_size: see `compare`.
        workers: see `compare`.
        progress: see `compare`.

    Returns:
        `BestPictures`: rows with `.image`, `.score`, `.group`, `.best_of`; `.paths`, `.copy_to(folder)`,
        `.to_csv(path)`.

    Raises:
        InputError: no pictures, a layout that can be read in two ways, or an argument that is none of the above.
        UnknownModelError, WeightsError: see `create_metric`.
    """
    from leafiqa.generators.best_pictures import PER, choose_pictures
    from leafiqa.generators.layouts import UNGROUPED
    from leafiqa.generators.places import as_places, gather_samples
    from leafiqa.generators.scoring_samples import score_samples

    whole_number(n, "n", 1)
    if per not in PER:
        raise InputError(f"per must be one of {', '.join(PER)}, got {per!r}")
    if per != "prompt":
        if layout is not None:
            raise InputError(f"layout tells prompts apart, which per={per!r} does not look at")
        layout = UNGROUPED
    samples = gather_samples(as_places(images), layout=layout, single=True)
    with _opened(cache) as store:
        scored = score_samples(
            samples,
            _metrics(metric, weights, device),
            cache=store,
            device=device,
            batch_size=batch_size,
            workers=workers,
            progress=progress,
        )
    if len(scored.scores) > 1:
        raise InputError(f"best pictures are chosen by one metric, got {', '.join(scored.scores)}")
    found = choose_pictures(scored, per, n)
    grouped = {"prompt": f"read as {samples.layout}", "folder": "the best of each folder", "all": "the best of all"}[
        per
    ]
    found.remarks = [grouped, *samples.remarks, *found.remarks]
    return found


@contextlib.contextmanager
def _opened(cache: str | os.PathLike[str] | bool | None) -> Iterator[ScoreCache | None]:
    """Open the cache that an argument means."""
    from leafiqa.generators.score_cache import ScoreCache, usual_place

    if cache is None or cache is False:
        yield None
        return
    if cache is not True and not isinstance(cache, (str, os.PathLike)):
        raise InputError(f"cache must be a path, True or None, got {cache!r}")
    try:
        store = ScoreCache(usual_place() if cache is True else cache)
    except OutputError:
        if cache is not True:
            raise
        # Nobody asked for this place: a home that cannot be written to is no reason to stop.
        yield None
        return
    with store:
        yield store


def _metrics(metric: Any, weights: str | os.PathLike[str] | None, device: Any) -> list[Any] | None:
    if weights is not None:
        from leafiqa.metric import load_metric

        if metric is not None:
            raise InputError(f"give metric or weights, not both: got metric={metric!r} and weights={weights!r}")
        return [load_metric(weights=weights, device=device)]
    if metric is None:
        return None
    given = list(metric) if isinstance(metric, (list, tuple)) else [metric]
    if not given:
        raise InputError("metric must be a metric or several, got none")
    return given


def _need_pairs(found: GeneratorComparison) -> None:
    """Refuse a comparison in which nothing is compared.

    Raises:
        InputError: no two generators share a prompt.
    """
    lead = found.metrics[0]
    if any(pair.prompts for pair in lead.pairs):
        return
    if len(lead.pairs) == 0:
        reasons = list(found.failed.items())[:3]
        told = "; ".join(f"{path}: {why}" for path, why in reasons)
        raise InputError(f"fewer than two generators have any score: {told}")
    examples = []
    for generator in found.samples.generators:
        unit = next(sample.unit for sample in found.samples.samples if sample.generator == generator)
        examples.append(f"{generator} has {unit!r}")
    raise InputError(
        f"no two generators share a prompt, so nothing can be compared ({found.samples.layout}: "
        f"{', '.join(examples)}); give the pictures of one prompt the same name in each folder, or list them in a "
        "table with image, generator, "
        "prompt"
    )


def report(
    source: GeneratorComparison | Scores | Panel | Paths,
    output: str | os.PathLike[str],
    *,
    metric: Any = None,
    weights: str | os.PathLike[str] | None = None,
    recursive: bool = False,
    title: str | None = None,
    thumbnails: str = "embed",
    max_images: int = 1500,
    device: str | torch.device | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Write a page to show: one HTML file that opens by double click and makes no request.

    Args:
        source: what `compare`, `score` or `summarise_ratings` returned; a file that `leafiqa score` wrote; or files,
            folders and patterns, which are scored first.
        output: the page, `.html`.
        metric: for files: a metric or several, see `score`; the first one orders the pictures. For ratings: a metric
            whose disagreement with the raters is shown.
        weights: for files: see `create_metric`.
        recursive: for files: look into the folders of a folder, too.
        title: the page's title.
        thumbnails: "embed" puts small copies of the pictures into the page; "beside" into a folder `NAME_thumbnails`.
        max_images: at most so many small copies; the page says how many pictures are not shown. Embedded ones are also
            held to 22 MB.
        device: for files: where metrics given by name compute.
        overwrite: whether a page that leafiqa wrote may be replaced.
        progress: called with how many pictures are done, and how many there are.

    Returns:
        The page's path.

    Raises:
        InputError: an argument that is none of the above, or no images were found.
        OutputError: the page exists already, is an input, or there is no such folder.
    """
    from leafiqa.api.using import score
    from leafiqa.files import write_whole
    from leafiqa.generators.generator_comparison import GeneratorComparison
    from leafiqa.generators.places import read_scores
    from leafiqa.rating.panel import Panel
    from leafiqa.rating.rating_page import render_rating
    from leafiqa.reports.generators_page import render_generators
    from leafiqa.reports.images_page import render_images
    from leafiqa.reports.pictures import check_page, check_pictures
    from leafiqa.scoring.scores import Scores

    check_pictures(max_images, thumbnails)
    page = check_page(output, thumbnails, overwrite=overwrite)
    options: dict[str, Any] = {
        "most": max_images,
        "thumbnails": thumbnails,
        "overwrite": overwrite,
        "progress": progress,
    }
    chosen = "leaf" if metric is None else metric
    if isinstance(source, GeneratorComparison):
        if metric is not None or weights is not None:
            raise InputError("metric and weights are for files that are still to be scored, and for ratings")
        names = ", ".join(source.samples.generators)
        text = render_generators(source, page, title=title or f"Image generators: {names}", **options)
    elif isinstance(source, Panel):
        scores: dict[str, float] = {}
        named = ""
        if metric is not None or weights is not None:
            rows = score([of.image for of in source.pictures], chosen, weights=weights, device=device).rows
            scores = {row.image: row.score for row in rows if row.score is not None}
            named = rows[0].metric
        text = render_rating(source, page, title=title or "Ratings", scores=scores, metric=named, **options)
    else:
        if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() in (".csv", ".jsonl", ".json"):
            source = read_scores(Path(source))
        elif not isinstance(source, Scores):
            source = score(source, chosen, weights=weights, recursive=recursive, device=device, progress=progress)
        elif metric is not None or weights is not None:
            raise InputError("metric and weights are for files that are still to be scored, and for ratings")
        if not source.rows:
            raise InputError("there are no scores to show")
        text = render_images(source, page, title=title or "Image quality", **options)
    write_whole(page, text)
    return page
