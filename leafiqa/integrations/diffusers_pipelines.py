"""Score what diffusers pipelines make: a validation with fixed seeds, and quality along the denoising steps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from leafiqa.arguments import whole_number
from leafiqa.errors import InputError
from leafiqa.integrations.tracker import QualityTracker, exact_scores, scoring_metric
from leafiqa.metric import Metric


def validate_pipeline(
    pipeline: Any,
    tracker: QualityTracker,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int] = (0,),
    batch_size: int = 4,
    **options: Any,
) -> None:
    """Generate pictures of fixed prompts and seeds, and update a tracker with them; `tracker.compute(step)` follows.

    Each prompt and seed has noise of its own, the same at every validation and for every model, whatever the batch: one
    generator that goes on from picture to picture compares different noise, and one noise for all prompts makes them
    alike, which the intervals take them not to be.

    Args:
        pipeline: a diffusers pipeline, called with `prompt`, `generator` and `options`; its `.images` are scored.
        tracker: takes the scores.
        prompts: what is generated.
        seeds: of each prompt.
        batch_size: pictures generated together.
        options: further arguments of the pipeline, such as `num_inference_steps`.

    Raises:
        InputError: no prompts or seeds, or the pipeline returned another number of pictures.
    """
    whole_number(batch_size, "batch_size", 1)
    if isinstance(prompts, str) or not prompts or not seeds:
        raise InputError(f"prompts and seeds must be lists that are not empty, got {prompts!r:.60} and {seeds!r:.60}")
    wanted = [(prompt, seed) for prompt in prompts for seed in seeds]
    for start in range(0, len(wanted), batch_size):
        some = wanted[start : start + batch_size]
        generators = [torch.Generator("cpu").manual_seed(_noise_of(prompt, seed)) for prompt, seed in some]
        images = pipeline(prompt=[prompt for prompt, _ in some], generator=generators, **options).images
        if len(images) != len(some):
            raise InputError(f"the pipeline must return a picture for each prompt, got {len(images)} for {len(some)}")
        tracker.update(images, [prompt for prompt, _ in some])


def _noise_of(prompt: str, seed: int) -> int:
    """Return the seed of a prompt's noise."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big")


class StepQuality:
    """Scores the picture that a pipeline of latents has at every so many denoising steps.

    Pass it as `callback_on_step_end`; `scores` then holds for each step looked at the scores of the batch, of the last
    call of the pipeline.

    Args:
        metric: a name or a metric, not `as_loss`.
        every: look at each step whose number is a multiple of this.
        device: where a metric given by name computes.

    Raises:
        InputError: a metric that returns losses.

    Example:
        >>> look = StepQuality("leaf", every=5)
        >>> pipeline("a cat", callback_on_step_end=look)
        >>> look.scores
        {0: [0.02], 5: [0.11], 10: [0.48]}
    """

    def __init__(
        self, metric: str | Metric = "leaf", every: int = 1, *, device: str | torch.device | None = None
    ) -> None:
        self.metric = scoring_metric(metric, device)
        self.every = whole_number(every, "every", 1)
        self.scores: dict[int, list[float]] = {}

    @torch.no_grad()
    def __call__(self, pipeline: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Decode the latents, score them, and return `callback_kwargs` as they are."""
        if step == 0:
            self.scores = {}
        if step % self.every:
            return callback_kwargs
        latents = callback_kwargs.get("latents")
        if latents is None or not hasattr(pipeline, "vae"):
            raise InputError(
                "StepQuality needs a pipeline with a vae that passes its latents: leave 'latents' in "
                "callback_on_step_end_tensor_inputs"
            )
        config = pipeline.vae.config
        if latents.dim() != 4 or getattr(config, "latents_mean", None) is not None:
            raise InputError(
                "StepQuality decodes latents (B, C, h, w) that are scaled by one factor, as those of Stable Diffusion; "
                f"{type(pipeline).__name__} has others: score its pictures instead"
            )
        scaled = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        decoded = pipeline.vae.decode(scaled.to(pipeline.vae.dtype), return_dict=False)[0]
        self.scores[step] = exact_scores(self.metric, (decoded.float() / 2 + 0.5).clamp(0, 1)).tolist()
        return callback_kwargs
