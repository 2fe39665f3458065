"""Pictures of many origins: `python -m benchmarks.varied_pictures MIRRORS`.

`benchmarks/varied/pictures.csv` names pictures of many public repositories, by path and git blob: generated ones of as
many generators as could be found (`gallery`), and photographs of as many origins (`snaps`), each repository with few.
The files beside it are what a multimodal LLM says of them, on contact sheets of nine with anchors, whose scores on the
common scale are known; each picture was judged twice, in other company. `gallery.jsonl` and `snaps.jsonl` are there to
be learned from. `val.jsonl` judges others, of both kinds; no student is to learn from those, nor from further ones of
their repositories.

The pictures are no part of the project. This writes them to `../runs/more`, scaled to at most 768 pixels a side, out of
git directories that lie at `MIRRORS/owner+name/repo`, or in `.git` there.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
from pathlib import Path

from PIL import Image, ImageOps

from leafiqa.distillation.config import Source

FOLDER = Path(__file__).with_name("varied")
TABLE = FOLDER / "pictures.csv"
PICTURES = Path("../runs/more")
SIDE = 768
KINDS = ("gallery", "snaps")
EVIDENCE = tuple(FOLDER / f"{name}.jsonl" for name in (*KINDS, "val"))


def varied_sources() -> list[Source]:
    """Return the two sources to learn from; the anchors of their sheets are not in the table, and so no part of it."""
    return [Source(kind, PICTURES, (FOLDER / f"{kind}.jsonl",), TABLE) for kind in KINDS]


def read_table() -> list[dict[str, str]]:
    """Return the pictures' rows: image, repository, path, blob, split, what, licence."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def upright(data: bytes) -> Image.Image:
    """Return a picture as it is shown, on white where it is transparent, of at most 768 pixels a side."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def main() -> None:
    """Write the pictures; those that are there are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mirrors", type=Path, help="folder of git directories, owner+name/repo")
    arguments = parser.parse_args()
    rows = read_table()
    missing = 0
    for row in rows:
        written = PICTURES / row["image"]
        if written.exists():
            continue
        mirror = arguments.mirrors / row["repository"].replace("/", "+") / "repo"
        repository = mirror / ".git" if (mirror / ".git").is_dir() else mirror
        found = subprocess.run(["git", "--git-dir", repository, "cat-file", "blob", row["blob"]], capture_output=True)
        if found.returncode:
            missing += 1
            continue
        written.parent.mkdir(parents=True, exist_ok=True)
        upright(found.stdout).save(written, "JPEG", quality=95, subsampling=0)
    print(
        f"{len(rows) - missing} of {len(rows)} pictures are there" + (f", {missing} were not found" if missing else "")
    )


if __name__ == "__main__":
    main()
