"""Pictures with evidence, packed to travel to a machine with a GPU: `python -m benchmarks.packed FOLDER`.

Each picture of `benchmarks/distill_leaf_wide.toml` is resized as training holds it and written as AVIF of high quality,
which takes a tenth of the room that its pixels take. Beside them an index tells its source, its split, its group and
what the teacher said of it; no human score is in it. Shards are small enough to be sent one by one, and those that
come last hold photographs alone, of which there are more than enough.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import DATA, need_data
from benchmarks.transfer import left_out
from leafiqa.cli.progress import progress
from leafiqa.distillation.config import read_config
from leafiqa.distillation.data import pristine_paths, read_splits, resized
from leafiqa.evidence.linking import read_on_common_scale
from leafiqa.evidence.reliability import targets
from leafiqa.images.decoding import decode
from leafiqa.images.loading import load_ahead
from leafiqa.model.preprocess import Preprocess

CONFIG = Path(__file__).with_name("distill_leaf_wide.toml")
PRISTINE = "pristine"
_QUALITY, _SPEED = 85, 8
_SHARD = 55_000_000


@dataclass(frozen=True)
class Packed:
    """A picture of a pack.

    Attributes:
        name: as the evidence calls it.
        source: name of its source.
        split: "train", "val" or another one.
        group: what `benchmarks.transfer` calls the origin that it is of and that may be left out; else empty.
        score: the teacher's, in [0, 1]; None of a pristine photograph, which it did not see.
        reliability: of the score, in [0, 1].
        shard: number of the file that holds it.
        start: where it begins in that file, in bytes.
        size: how many bytes it has.
    """

    name: str
    source: str
    split: str
    group: str
    score: float | None
    reliability: float
    shard: int = 0
    start: int = 0
    size: int = 0


def shard_path(folder: Path, number: int) -> Path:
    """Return the file of a shard."""
    return folder / f"s{number}" / "pictures.bin"


def _listed() -> list[tuple[Path, Packed]]:
    """Return all pictures: those that are few of a kind first, in an order that is drawn once."""
    config = read_config(CONFIG)
    groups = left_out()
    found: list[tuple[Path, Packed]] = []
    for source in config.sources:
        splits = read_splits(source)
        for name, target in sorted(targets(read_on_common_scale(source.evidence, config.common)).items()):
            if name in splits:
                group = next((title for title, (of, is_of) in groups.items() if of == source.name and is_of(name)), "")
                told = Packed(name, source.name, splits[name], group, target.score, target.reliability)
                found.append((source.images / name, told))
    for held_out in (False, True):
        for path in pristine_paths(config.pristine or DATA, config.pristine_holdout, held_out):
            found.append((path, Packed(path.name, PRISTINE, "val" if held_out else "train", "", None, 0.0)))
    order = np.random.default_rng(0).permutation(len(found))
    return sorted((found[i] for i in order), key=lambda one: one[1].source == "photos" and one[1].split == "train")


def pack(folder: Path) -> list[Packed]:
    """Write the shards and the index, and return what stands in it."""
    listed = _listed()
    look = Preprocess(area=read_config(CONFIG).stored ** 2)

    def encoded(one: tuple[Path, Packed]) -> bytes:
        pixels = resized(decode(one[0]).pixels, look).permute(1, 2, 0).numpy()
        memory = io.BytesIO()
        Image.fromarray(pixels).save(memory, "AVIF", quality=_QUALITY, speed=_SPEED, subsampling="4:4:4", max_threads=1)
        return memory.getvalue()

    index: list[Packed] = []
    shard, start = 0, 0
    folder.mkdir(parents=True, exist_ok=True)
    with progress("packing", "pictures") as bar:
        for (_, told), data in zip(listed, load_ahead(encoded, listed)):
            if start + len(data) > _SHARD:
                shard, start = shard + 1, 0
            path = shard_path(folder, shard)
            path.parent.mkdir(exist_ok=True)
            with path.open("ab" if start else "wb") as file:
                file.write(data)
            index.append(Packed(**{**asdict(told), "shard": shard, "start": start, "size": len(data)}))
            start += len(data)
            bar(len(index), len(listed))
    (folder / "index.json").write_text(json.dumps([asdict(one) for one in index]), encoding="utf-8")
    return index


def main() -> None:
    """Pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    need_data()
    index = pack(parser.parse_args().folder)
    print(f"{len(index)} pictures in {1 + max(one.shard for one in index)} shards")


if __name__ == "__main__":
    main()
