"""A thousand photographs of 12 megapixels on the rating page: `python -m benchmarks.rate_speed --json FILE`.

`leafiqa rate` on 1,000 files (links to a few JPEGs of 4,000 by 3,000 pixels that are made on the spot), while the
student looks at them in the background. A scripted rater opens the page and answers once a second: how long until the
address is printed, until the first picture is there, until an answer is saved and the next question is known, until the
picture after it is loaded ahead, and how the server's memory grows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

FILES, KINDS, ANSWERS = 1000, 8, 60


def photographs(place: Path) -> None:
    """Write a few large pictures, and links to them."""
    place.mkdir()
    originals = place.parent / "originals"
    originals.mkdir()
    for kind in range(KINDS):
        rng = np.random.default_rng(kind)
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((4000, 3000), Image.BICUBIC)
        noise = rng.normal(0, 6, (3000, 4000, 1))
        picture = (np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(originals / f"{kind}.jpg", quality=92)
    for number in range(FILES):
        os.link(originals / f"{number % KINDS}.jpg", place / f"{number:04}.jpg")


def memory(pid: int) -> float:
    """Return a process's memory in MB."""
    with open(f"/proc/{pid}/status") as file:
        return int(next(line for line in file if line.startswith("VmRSS")).split()[1]) / 1000


def main() -> None:
    """Rate, time, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        photographs(place / "photographs")
        command = [sys.executable, "-m", "leafiqa", "rate", "photographs", "-o", "ratings.csv", "-n", "200"]
        began = time.perf_counter()
        running = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        address = running.stdout.readline().strip()
        started = time.perf_counter() - began

        def post(what: str, content: dict) -> dict:
            body = json.dumps({"rater": "ann", **content}).encode()
            request = urllib.request.Request(address + what, body, {"Content-Type": "application/json"})
            return json.loads(urllib.request.urlopen(request, timeout=60).read())

        def load(keys: list[str]) -> int:
            return sum(len(urllib.request.urlopen(f"{address}picture/{key}", timeout=60).read()) for key in keys)

        began = time.perf_counter()
        urllib.request.urlopen(address).read()
        state = post("state", {})
        size = load(state["pictures"])
        first = time.perf_counter() - began
        saved, ahead, held = [], [], []
        for _ in range(ANSWERS):
            began = time.perf_counter()
            load(post("ahead", {})["pictures"])
            ahead.append(time.perf_counter() - began)
            time.sleep(max(0.0, 1.0 - ahead[-1]))
            began = time.perf_counter()
            state = post("answer", {"number": state["number"], "value": "3", "seconds": 1})
            saved.append(time.perf_counter() - began)
            held.append(memory(running.pid))
        running.terminate()
        running.wait()
    found = {
        "files": FILES,
        "picture in MB": size / 1e6,
        "until the address, s": started,
        "until the first picture, s": first,
        "answer to next question, median ms": 1000 * statistics.median(saved),
        "answer to next question, largest ms": 1000 * max(saved),
        "next picture loaded ahead, median ms": 1000 * statistics.median(ahead),
        "next picture loaded ahead, largest ms": 1000 * max(ahead),
        "memory after 10, 30 and 60 answers, MB": [held[9], held[29], held[-1]],
    }
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
