"""Pictures of a pack on a GPU, some with two degraded versions: `python -m benchmarks.bank PACK FOLDER [SHARD...]`.

Degrading takes longer than training on a GPU does, so it is done once, by all cores, a shard at a time, and a run then
cuts its pictures out of what lies in the GPU's memory.
"""

from __future__ import annotations

import argparse
import io
import json
import mmap
import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.packed import Packed, shard_path
from leafiqa.images.loading import cores
from leafiqa.training.degradations.arrays import LEVELS
from leafiqa.training.degradations.ladders import DEGRADATIONS, degrade
from leafiqa.training.degradations.nothing import null_image

_STEPS = 2
# Share of the train pictures that are degraded: it is most of the work, and a step needs few of them.
_DEGRADED = 0.4
# Side of the square to whose area pictures were resized for the pack, and how many pictures of nothing there are.
STORED, _NULLS = 448, 64


@dataclass(frozen=True)
class Prepared:
    """A picture, and how it was degraded; its pixels and those of its degraded versions follow each other in a file.

    Attributes:
        told: what stands in the pack's index.
        height: in pixels.
        width: in pixels.
        start: where its pixels begin in the file, in bytes.
        kind: what was done to it, a key of `DEGRADATIONS`; empty where nothing was.
        levels: how strongly, two of them, the milder first.
    """

    told: Packed
    height: int
    width: int
    start: int
    kind: str
    levels: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of one version."""
        return self.height * self.width * 3


_shared: dict[str, Any] = {}


def _spoil(number: int) -> None:
    """Write one picture and its degraded versions; runs in a process of a pool, which has inherited `_shared`."""
    one, data, memory, seed = _shared["pictures"][number], _shared["data"], _shared["memory"], _shared["seed"]
    told = one.told
    with Image.open(io.BytesIO(data[told.start : told.start + told.size])) as image:
        pixels = np.asarray(image.convert("RGB"))
    versions = [pixels, *(degrade(pixels, one.kind, float(level), seed + number) for level in one.levels)]
    for place, version in enumerate(versions):
        start = one.start + place * one.size
        memory[start : start + one.size] = version.tobytes()


def prepare(pack: Path, shard: int, folder: Path) -> int:
    """Decode and degrade the pictures of a shard, and write them to `sN.u8` and `sN.json`; return how many."""
    index = [Packed(**one) for one in json.loads((pack / "index.json").read_text(encoding="utf-8"))]
    data = shard_path(pack, shard).read_bytes()
    rng = np.random.default_rng([shard, 1])
    pictures: list[Prepared] = []
    end = 0
    for told in index:
        if told.shard != shard:
            continue
        with Image.open(io.BytesIO(data[told.start : told.start + told.size])) as image:
            width, height = image.size
        kind, levels = "", ()
        if told.split == "train" and rng.random() < _DEGRADED:
            kind = list(DEGRADATIONS)[int(rng.integers(len(DEGRADATIONS)))]
            levels = tuple(sorted(int(level) + 1 for level in rng.choice(LEVELS, _STEPS, replace=False)))
        pictures.append(Prepared(told, height, width, end, kind, levels))
        end += (1 + len(levels)) * pictures[-1].size
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"s{shard}.u8"
    with place.open("wb+") as file:
        file.truncate(end)
        memory = mmap.mmap(file.fileno(), end)
        _shared.update(pictures=pictures, data=data, memory=memory, seed=shard * 100_000)
        with multiprocessing.get_context("fork").Pool(cores()) as pool:
            pool.map(_spoil, range(len(pictures)), chunksize=4)
        memory.flush()
    told_of = [asdict(one) for one in pictures]
    ready = folder / f"s{shard}.json"
    ready.with_suffix(".tmp").write_text(json.dumps(told_of), encoding="utf-8")
    ready.with_suffix(".tmp").replace(ready)
    return len(pictures)


class Bank:
    """Prepared shards in a device's memory, and pictures of nothing.

    Args:
        folder: where `prepare` wrote them.
        shards: their numbers.
        device: the device.

    Attributes:
        pictures: what is known of each.
        pixels: all of them one after the other, `(pixels, 3)` uint8.
        starts: at which pixel each picture begins, those of nothing last; a degraded version follows its picture.
        heights: of each, those of nothing last.
        widths: of each, those of nothing last.
    """

    def __init__(self, folder: Path, shards: Sequence[int], device: torch.device) -> None:
        files = [np.memmap(folder / f"s{shard}.u8", np.uint8, "r") for shard in shards]
        rng = np.random.default_rng(0)
        empty = np.stack([null_image(STORED, rng) for _ in range(_NULLS)])
        flat = torch.empty(sum(map(len, files)) + empty.size, dtype=torch.uint8, device=device)
        self.pictures: list[Prepared] = []
        starts: list[int] = []
        end = 0
        for shard, pixels in zip(shards, files):
            for one in json.loads((folder / f"s{shard}.json").read_text(encoding="utf-8")):
                told = Packed(**one.pop("told"))
                self.pictures.append(Prepared(told, **{**one, "levels": tuple(one["levels"])}))
                starts.append(end + self.pictures[-1].start)
            # A copy in memory first: a device copies pages that are still on disk one by one.
            flat[end : end + len(pixels)] = torch.from_numpy(np.array(pixels)).to(device)
            end += len(pixels)
        flat[end:] = torch.from_numpy(empty.reshape(-1)).to(device)
        self.pixels = flat.view(-1, 3)
        self.starts = np.array([*starts, *(end + number * STORED**2 * 3 for number in range(_NULLS))]) // 3
        self.heights = np.array([one.height for one in self.pictures] + [STORED] * _NULLS)
        self.widths = np.array([one.width for one in self.pictures] + [STORED] * _NULLS)

    def several(self, numbers: Sequence[int], version: int = 0) -> list[Tensor]:
        """Return pictures, see `picture`."""
        return [self.picture(int(number), version) for number in numbers]

    def picture(self, number: int, version: int = 0) -> Tensor:
        """Return a picture, `(h, w, 3)` uint8; version 0 as it is, 1 and 2 degraded."""
        height, width = int(self.heights[number]), int(self.widths[number])
        start = int(self.starts[number]) + version * height * width
        return self.pixels[start : start + height * width].view(height, width, 3)


def main() -> None:
    """Prepare shards, all that are there by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shards", type=int, nargs="*")
    arguments = parser.parse_args()
    there = arguments.shards or sorted(int(path.name[1:]) for path in arguments.pack.glob("s*") if path.is_dir())
    for shard in there:
        print(f"shard {shard}: {prepare(arguments.pack, shard, arguments.folder)} pictures", flush=True)


if __name__ == "__main__":
    main()
