"""Folders of generated pictures, in the layouts in use; each picture is a flat grey of a known level."""

import json
from pathlib import Path

from PIL import Image


def grey(path, level):
    """Write a small grey picture; `brightness` gives its level back."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return Path(path)


def brightness(path):
    """A metric for tests: the grey level, 0 to 1."""
    return Image.open(path).convert("L").getpixel((0, 0)) / 255


def flat(folder, levels, ending=".png"):
    """One picture a prompt, named by number."""
    for number, level in enumerate(levels):
        grey(folder / f"{number:04}{ending}", level)
    return folder


def geneval(folder, prompts, level, samples=2):
    """GenEval's layout, with its overview picture."""
    for number, prompt in enumerate(prompts):
        place = folder / f"{number:05}"
        for seed in range(samples):
            grey(place / "samples" / f"{seed:04}.png", level + 10 * number + seed)
        (place / "metadata.jsonl").write_text(json.dumps({"prompt": prompt, "tag": "single_object"}) + "\n")
        grey(place / "grid.png", 0)
    return folder
