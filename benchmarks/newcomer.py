"""Time what a newcomer does: from evidence on 200 images to a calibrated metric, by the commands of the docs.

    python -m benchmarks.newcomer FOLDER [--json OUT.json]

200 of BIQ2021's train images, drawn at random, become a folder of their own with the teacher's evidence on them and
50 human scores. Then `leafiqa distill`, `leafiqa calibrate` and `leafiqa calibrate --evidence` run one after the other,
each timed, with the defaults of docs/distill.md and docs/calibrate.md. SRCC on `val` is given beside: the bundled
student has seen these images before, so it says only that nothing broke.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import leafiqa
from benchmarks.common import DATA, TEACHER, need_data
from leafiqa.evaluation.measures import spearman
from leafiqa.labels.mos_table import read_mos

IMAGES, LABELS = 200, 50
CONFIG = """output = "mine"

[[sources]]
images = "photos"
evidence = ["evidence.jsonl"]

[card]
name = "leaf_lite0.mine"
description = "What it is for"
"""
COMMANDS = {
    "distill": "leafiqa distill mine.toml",
    "calibrate": "leafiqa calibrate --weights mine/leaf_lite0.mine.safetensors --mos ratings.csv --images photos "
    "--scale 0 1 -o mine/leaf_lite0.calibrated",
    "calibrate --evidence": "leafiqa calibrate --weights mine/leaf_lite0.mine.safetensors --mos ratings.csv "
    "--images photos --scale 0 1 --evidence evidence.jsonl --evidence-images photos -o mine/leaf_lite0.both",
}
STUDENTS = {"distill": "mine", "calibrate": "calibrated", "calibrate --evidence": "both"}


def prepare(folder: Path) -> None:
    """Write the newcomer's folder: `photos/`, `evidence.jsonl`, `ratings.csv`, `mine.toml`."""
    rows = read_mos(DATA / "biq2021" / "mos.csv", split="train").rows
    chosen = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:IMAGES]]
    names = {f"biq2021/{row.image}": row.path.name for row in chosen}
    (folder / "photos").mkdir(parents=True)
    for row in chosen:
        shutil.copy(row.path, folder / "photos")
    records = [json.loads(line) for line in (TEACHER / "biq2021.jsonl").read_text().splitlines()]
    known = [{**r, "image": names[r["image"]]} for r in records if r.get("image") in names]
    for ranking in (r for r in records if r["kind"] == "ranking"):
        if len(ranked := [names[name] for name in ranking["images"] if name in names]) > 1:
            known.append({**ranking, "images": ranked})
    (folder / "evidence.jsonl").write_text("".join(json.dumps(record) + "\n" for record in known))
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos"), *((row.path.name, row.mos) for row in chosen[:LABELS])])
    (folder / "mine.toml").write_text(CONFIG)


def main() -> None:
    """Run, time and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    need_data()
    need_data(TEACHER)
    prepare(arguments.folder)
    val = read_mos(DATA / "biq2021" / "mos.csv", split="val").rows
    results = []
    for step, command in COMMANDS.items():
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *command.split()], cwd=arguments.folder, capture_output=True, text=True, check=False
        )
        minutes = (time.monotonic() - began) / 60
        print(done.stdout, done.stderr, sep="", flush=True)
        if done.returncode:
            raise SystemExit(f"{command}: exit {done.returncode}")
        metric = leafiqa.create_metric(weights=arguments.folder / f"mine/leaf_lite0.{STUDENTS[step]}.safetensors")
        scores = metric(row.path for row in val).cpu().numpy()
        srcc = round(spearman(scores, np.array([row.mos for row in val])), 4)
        rung = metric.card.training.get("calibration", {}).get("rung")
        results.append({"step": step, "command": command, "minutes": round(minutes, 1), "rung": rung, "val_srcc": srcc})
        print(results[-1], flush=True)
    total = round(sum(result["minutes"] for result in results), 1)
    summary = {"images": IMAGES, "labels": LABELS, "cores": os.cpu_count(), "minutes": total, "steps": results}
    print(summary)
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
