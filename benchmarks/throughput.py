"""Ways of scoring files beside each other and beside the bare network, and memory against the number of images.

    git worktree add ../before COMMIT
    python -m benchmarks.throughput --before ../before --json benchmarks/results/throughput.json

Ratios within one run; absolute times say more about the machine. The files are 512x512 JPEGs made on the spot. Each way
runs in a process of its own, one after the other, in several rounds; the median over rounds of the ratios of one round.
`--before` names a checkout of an earlier version, whose `metric(paths)` is a way, too. Memory is the peak resident size
of `leafiqa score` in a process of its own, on as many links to the same pictures. `--core` adds what a picture costs a
core, the one absolute time here: for docs/cluster.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from leafiqa.cli.demo import PICTURES

ROOT = Path(__file__).resolve().parents[1]


def draw(folder: Path, count: int) -> list[str]:
    """Make `count` different JPEGs of 512x512 out of the demo's photographs: turned, flipped, shifted, grained."""
    photographs = [np.asarray(Image.open(file).convert("RGB"))[:512, :512] for file in sorted(PICTURES.glob("*.jpg"))]
    paths = []
    for index in range(count):
        path, rng = folder / f"{index:04}.jpg", np.random.default_rng(index)
        pixels = np.roll(
            np.rot90(photographs[index % len(photographs)], int(rng.integers(4))), int(rng.integers(512)), axis=1
        )
        grained = (pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grained).save(path, quality=90)
        paths.append(str(path))
    return paths


# What each way does; `times` collects seconds. Each runs once before it is timed.
_PRELUDE = """
import sys, time, glob
paths = sorted(glob.glob(sys.argv[1] + "/*.jpg"))
def timed(work, most=3):
    work()
    times = []
    for _ in range(most):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    print(min(times) / len(paths))
import leafiqa
"""
_TORCH = "metric = leafiqa.create_metric('leaf', device='cpu')\n"
_ONNX = "metric = leafiqa.create_metric('leaf', backend='onnx')\n"
_READY = "import torch\nready = torch.rand(1, 3, 384, 384)\nvalid = torch.ones(1, dtype=torch.bool)\n"
_BARE = (
    _TORCH + _READY + "def bare():\n"
    "    with torch.no_grad():\n"
    "        [metric._score_resized(ready, valid) for _ in paths]\ntimed(bare)"
)
_BARE_ONNX = _ONNX + "import numpy as np\nready = [np.random.rand(1, 384, 384, 3).astype('f')] * len(paths)\n"
WAYS = {
    "network": _BARE,
    "metric(paths)": _TORCH + "timed(lambda: metric(paths))",
    "metric(path), one by one": _TORCH + "timed(lambda: [metric(path) for path in paths])",
    "metric.explain_each(paths)": _TORCH + "timed(lambda: metric.explain_each(paths))",
    "leafiqa.score": _TORCH + "timed(lambda: leafiqa.score(paths, metric))",
    "leafiqa score": (
        "from leafiqa.cli.main import cli\nimport os\n"
        "options = ['--backend', 'torch', '--device', 'cpu', '--format', 'csv', '-o', os.devnull]\n"
        "timed(lambda: cli(['score', sys.argv[1], *options], standalone_mode=False))"
    ),
    "onnx network, side by side": _BARE_ONNX + "timed(lambda: metric.score_prepared(ready))",
    "onnx metric(paths)": _ONNX + "timed(lambda: metric(paths))",
    "onnx metric(path), one by one": _ONNX + "timed(lambda: [metric(path) for path in paths])",
    "onnx leafiqa.score": _ONNX + "timed(lambda: leafiqa.score(paths, metric))",
    "onnx leafiqa score": (
        "from leafiqa.cli.main import cli\nimport os\n"
        "options = ['--backend', 'onnx', '--format', 'csv', '-o', os.devnull]\n"
        "timed(lambda: cli(['score', sys.argv[1], *options], standalone_mode=False))"
    ),
}


def throughput(folder: Path, images: int, rounds: int, before: Path | None) -> dict:
    """Time each way in turn; report how long a picture takes, as a multiple of torch's bare network."""
    ways = {name: (code, None) for name, code in WAYS.items()}
    if before is not None:
        ways["metric(paths), before"] = (_TORCH + "timed(lambda: metric(paths), 1)", before)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (code, place) in ways.items():
            environment = {**os.environ, "PYTHONPATH": str((place or ROOT).resolve())}
            command = [sys.executable, "-c", _PRELUDE + code, str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=environment)
            times[name].append(float(done.stdout.splitlines()[-1]))
            print(f"{name}: {1000 * times[name][-1]:.1f} ms a picture", file=sys.stderr, flush=True)
    ratios = {name: [one / bare for one, bare in zip(found, times["network"])] for name, found in times.items()}
    return {
        "images": images,
        "rounds": rounds,
        "times_network": {name: round(float(np.median(found)), 3) for name, found in ratios.items()},
    }


def peak_memory(folder: Path, sources: list[str], count: int) -> float:
    """Return the peak resident MiB of `leafiqa score` on `count` files."""
    place = folder / f"many_{count}"
    place.mkdir()
    for index in range(count):
        (place / f"{index:06}.jpg").symlink_to(sources[index % len(sources)])
    code = (
        "import re, sys; from leafiqa.cli.main import cli; sys.argv[0] = 'leafiqa';"
        "cli(['score', sys.argv[1], '--format', 'csv', '-o', sys.argv[2]], standalone_mode=False);"
        # Not ru_maxrss: a process inherits that of the one that started it.
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) / 1024)"
    )
    command = [sys.executable, "-c", code, str(place), str(folder / f"{count}.csv")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


# What a picture costs a core, from its file to its score, for planning: of the demo's photographs, scaled up for the
# larger size.
_CORE = """
import time, sys, glob
paths = sorted(glob.glob(sys.argv[1] + "/*.jpg"))
import leafiqa
metric = leafiqa.create_metric("leaf", backend="onnx", draft=sys.argv[2] == "draft")
leafiqa.score(paths[:2], metric)
began = time.process_time()
leafiqa.score(paths, metric)
print((time.process_time() - began) / len(paths))
"""


def core_seconds(folder: Path, rounds: int = 3) -> dict[str, float]:
    """Return the processor time of a picture in seconds, in ONNX Runtime: the least of some rounds."""
    found = {}
    for name, (size, count, draft) in {
        "512x512": ((512, 512), 96, False),
        "12 megapixels": ((4000, 3000), 12, False),
        "12 megapixels, draft": ((4000, 3000), 12, True),
    }.items():
        place = folder / f"{size[0]}"
        if not place.exists():
            place.mkdir()
            for index, source in enumerate(draw(place, count)):
                with Image.open(source) as picture:
                    picture.resize(size, Image.Resampling.LANCZOS).save(place / f"{index:04}.jpg", quality=90)
        command = [sys.executable, "-c", _CORE, str(place), "draft" if draft else ""]
        times = [
            float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(rounds)
        ]
        found[name] = round(min(times), 4)
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5, help="0 keeps the throughput that the file holds")
    parser.add_argument("--counts", type=int, nargs="*", default=[100, 1000, 10_000], help="for memory; none keeps it")
    parser.add_argument("--core", action="store_true", help="also what a picture costs a core")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths = draw(Path(name), arguments.images)
        results = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
        if arguments.rounds:
            results["throughput"] = throughput(Path(name), arguments.images, arguments.rounds, arguments.before)
            print(results["throughput"], file=sys.stderr, flush=True)
        if arguments.counts:
            results["peak_memory_mib"] = {
                str(count): round(peak_memory(Path(name), paths, count), 1) for count in arguments.counts
            }
        if arguments.core:
            results["core_seconds"] = core_seconds(Path(name))
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
