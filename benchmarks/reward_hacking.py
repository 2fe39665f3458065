"""What happens when one optimises `leaf`, and what the guard hears: `python -m benchmarks.reward_hacking --json FILE`.

Pictures of AGIQA-3K `val` (32 prompts and generators, at 256 pixels) are changed so that their score
rises:

- "pixels": gradient ascent on the pixels, unbounded (Adam, step 2/255);
- "pixels within 2/255", "within 8/255": the same, no pixel further than that from where it was;
- "edits": saturation, contrast, brightness, sharpness and blur, chosen for each picture by random search, as one tunes
  a generator's settings.

After each number of steps: the score, how far the picture is from where it was (PSNR), the score of
`hub/leaf_lite2.third`, another student of the same teacher that was not optimised and has another backbone, and whether
the guard raises an alarm: with prompts, where the reference is each picture as it was, and without, where it is one
half of the pictures and the guard looks at the other half. The false alarms are those of unchanged pictures, over
random halves; with prompts, of another picture that the same model made of the same prompt.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

import leafiqa
from benchmarks.common import DATA, need_data
from leafiqa.integrations import RewardGuard
from leafiqa.metric import Metric

SIZE, COUNT, HALVES = 256, 32, 200
STEPS = (0, 5, 20, 60)
BOUNDS = {"pixels": None, "pixels within 8/255": 8 / 255, "pixels within 2/255": 2 / 255}
TRIES = 40


def pictures(count: int) -> Tensor:
    """Return `(count, 3, SIZE, SIZE)` pictures of different prompts, the generators in turn."""
    with (DATA / "agiqa3k" / "mos.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val" and row["generator"] not in ("AttnGAN",)]
    random.Random(0).shuffle(rows)
    return torch.stack([opened(row["image"]) for row in rows[:count]])


def climbed(loss: Metric, start: Tensor, bound: float | None, steps: tuple[int, ...]) -> dict[int, Tensor]:
    """Return the pictures after so many steps of gradient ascent on the score."""
    found = {}
    change = torch.zeros_like(start, requires_grad=True)
    optimiser = torch.optim.Adam([change], lr=2 / 255)
    for step in range(max(steps) + 1):
        if step in steps:
            # As a picture that is saved: eight bits a channel.
            found[step] = ((start + change).clamp(0, 1).detach() * 255).round() / 255
        if step == max(steps):
            break
        optimiser.zero_grad()
        for part in range(0, len(start), 8):
            rows = slice(part, part + 8)
            images = (start[rows] + change[rows]).clamp(0, 1)
            (loss(images) * len(images)).backward()
        optimiser.step()
        if bound is not None:
            with torch.no_grad():
                change.clamp_(-bound, bound)
    return found


def edited(metric: Metric, start: Tensor, tries: int) -> Tensor:
    """Return each picture after the best-scoring of some random edits."""
    rng = random.Random(1)
    best, scores = start.clone(), metric(start)
    for _ in range(tries):
        images = []
        for one in start:
            image = Image.fromarray((one.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
            for kind in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness):
                image = kind(image).enhance(math.exp(rng.uniform(-0.7, 0.7)))
            if rng.random() < 0.5:
                image = image.filter(ImageFilter.UnsharpMask(rng.uniform(0.5, 3), rng.randrange(50, 300), 0))
            else:
                image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
            images.append(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255)
        candidates = torch.stack(images)
        found = metric(candidates)
        better = found > scores
        best[better], scores[better] = candidates[better], found[better]
    return best


def told(start: Tensor, now: Tensor, metric: Metric, other: Metric) -> dict:
    """Return score, distance, the other student's score, and what the guard says of the second half."""
    half = len(start) // 2
    seen = RewardGuard(start[:half]).check(now[half:])
    names = [str(number) for number in range(len(start))]
    paired = RewardGuard(start, names).check(now, names)
    error = ((start - now) ** 2).mean(dim=(1, 2, 3)).clamp(min=1e-12)
    return {
        "score": float(metric(now).mean()),
        "other student": float(other(now).mean()),
        "psnr": float((-10 * error.log10()).mean()) if bool((start != now).any()) else None,
        "alarms without prompts": seen.alarms,
        "alarms with prompts": paired.alarms,
        "drifts with prompts": {name: round(value, 3) for name, value in paired.drifts.items()},
    }


def false_alarms(start: Tensor) -> dict[str, float]:
    """Return how often the guard raises an alarm on pictures that nobody optimised."""
    rng = np.random.default_rng(0)
    half = len(start) // 2
    unpaired = paired = 0
    of_prompt = same_prompt()
    for _ in range(HALVES):
        order = torch.from_numpy(rng.permutation(len(start)))
        unpaired += bool(RewardGuard(start[order[:half]]).check(start[order[half:]]).alarms)
        # Two pictures that one model made of one prompt, in random roles.
        names = [str(place) for place in rng.permutation(len(of_prompt))[:COUNT]]
        swap = rng.random(len(names)) < 0.5
        first, second = (
            torch.stack([of_prompt[int(name)][int(turned) ^ side] for name, turned in zip(names, swap)])
            for side in (0, 1)
        )
        paired += bool(RewardGuard(first, names).check(second, names).alarms)
    return {"without prompts": unpaired / HALVES, "with prompts": paired / HALVES}


def same_prompt() -> list[Tensor]:
    """Return pairs `(2, 3, SIZE, SIZE)` of pictures that Stable Diffusion 1.5 made of one prompt, at two settings."""
    with (DATA / "agiqa3k" / "mos.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if "sd1.5_highcorr" in row["image"] or "sd1.5_normal" in row["image"]
        ]
    by_prompt: dict[str, list[str]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], []).append(row["image"])
    return [torch.stack([opened(name) for name in pair]) for pair in by_prompt.values() if len(pair) == 2][:100]


def opened(name: str) -> Tensor:
    """Return a picture `(3, SIZE, SIZE)` in [0, 1]."""
    image = Image.open(DATA / "agiqa3k" / name).convert("RGB").resize((SIZE, SIZE), Image.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def main() -> None:
    """Optimise, look, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--quick", action="store_true", help="few pictures and steps, to see that it runs")
    parser.add_argument("--pictures", type=Path, help="write the first pictures, before and after, here as PNG")
    arguments = parser.parse_args()
    need_data()
    count, steps, tries = (32, (0, 2), 2) if arguments.quick else (COUNT, STEPS, TRIES)
    start = pictures(count)
    metric, loss = leafiqa.create_metric("leaf"), leafiqa.create_metric("leaf", as_loss=True)
    other = leafiqa.create_metric(weights="weights/hub/leaf_lite2.third.safetensors")
    found: dict = {"pictures": count, "false_alarms": false_alarms(start), "ways": {}}
    shown = [start[:4]]
    for way, bound in BOUNDS.items():
        stages = climbed(loss, start, bound, steps)
        found["ways"][way] = {step: told(start, now, metric, other) for step, now in stages.items()}
        shown.append(stages[max(steps)][:4])
        print(way, json.dumps(found["ways"][way], indent=1), flush=True)
    now = edited(metric, start, tries)
    found["ways"]["edits"] = {tries: told(start, now, metric, other)}
    print("edits", json.dumps(found["ways"]["edits"], indent=1))
    print("false alarms", found["false_alarms"])
    shown.append(now[:4])
    if arguments.pictures:
        sheet = torch.cat([torch.cat(list(row), dim=2) for row in shown], dim=1)
        Image.fromarray((sheet.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(arguments.pictures)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
