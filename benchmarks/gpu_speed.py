"""How fast scoring is on a GPU, and what would make it faster: `python -m benchmarks.gpu_speed --json FILE`.

Images a second, on the card that is named, of the bare network in several forms and batch sizes, of the ways of scoring
tensors and files, and of resizing; each with the largest difference of its scores from those on the CPU. Files are
JPEGs made on the spot. `--before` names a checkout of an earlier version, whose ways of scoring are measured, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import leafiqa
from benchmarks.common import report
from benchmarks.throughput import ROOT, draw
from leafiqa.images.loading import cores
from leafiqa.metric import Metric
from leafiqa.model.exact import exact_float32
from leafiqa.model.fused_network import fuse
from leafiqa.model.resizing import _make_bands, resize

_FILES = 256
_LARGE = 32
_SECONDS = 0.4
PARTS = ("ways", "resizing", "networks", "recorded")


def rate(work: Callable[[], Any], images: int, seconds: float = _SECONDS) -> float:
    """Return images a second, the best of three."""
    work()
    torch.cuda.synchronize()
    best = 0.0
    for _ in range(3):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds / 3 or not count:
            work()
            count += 1
            if count % 4 == 0:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
        best = max(best, count * images / (time.perf_counter() - began))
    return best


class _Replayed:
    """A network that is recorded as a CUDA graph on its first call."""

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._network = network
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the network gives."""
        if self._graph is None:
            self._held = images.clone()
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._network(self._held)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._made = self._network(self._held)
            self._graph = graph
        self._held.copy_(images)
        self._graph.replay()
        return self._made


class Forms:
    """Forms of the network, each measured on resized pictures and kept as soon as it is.

    Args:
        pictures: `(64, 3, h, w)` on the GPU.
        expected: their scores on a CPU.
        keep: given all that was found so far, after each form.
    """

    def __init__(self, pictures: torch.Tensor, expected: torch.Tensor, keep: Callable[[Any], None]) -> None:
        self._pictures, self._expected, self._keep = pictures, expected, keep
        self.found: dict[str, Any] = {}

    @torch.no_grad()
    def measure(
        self,
        name: str,
        network: Callable[[torch.Tensor], torch.Tensor],
        batch: int,
        how: Callable[[], Any],
        last: bool = False,
    ) -> None:
        """Measure a form at one batch size, within the context that `how` makes; `last`: images are channels-last."""
        times = max(1, batch // len(self._pictures))
        images = self._pictures.repeat(times, 1, 1, 1)[:batch].contiguous()
        images = images.contiguous(memory_format=torch.channels_last) if last else images
        began = time.perf_counter()
        try:
            with how():
                scores = network(images).float().sigmoid().cpu()
                first = time.perf_counter() - began
                speed = rate(lambda: network(images), batch)
        except Exception as error:
            found: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"[:200]}
        else:
            off = float((scores - self._expected.repeat(times)[:batch]).abs().max())
            found = {"images_a_second": round(speed), "off": round(off, 7), "seconds_of_first": round(first, 1)}
        self.found[f"{name}, {batch}"] = found
        self._keep(self.found)
        print(f"{name}, {batch}: {found}", file=sys.stderr, flush=True)


def exact() -> Any:
    """float32 as it is on a CPU."""
    return exact_float32(torch.device("cuda"))


def fused(metric: Metric, layout: torch.memory_format) -> torch.nn.Module:
    """Return the student with batch normalisation folded, on the GPU; the metric's own stays there."""
    made = fuse(metric.student.cpu(), onednn=False).to("cuda", memory_format=layout)  # type: ignore[call-overload]
    metric.student.cuda()
    return made


def networks(metric: Metric, forms: Forms) -> None:
    """Measure the network in several precisions and layouts."""
    plain, last = fused(metric, torch.contiguous_format), fused(metric, torch.channels_last)
    for batch in (1, 16, 64, 256):
        forms.measure("student, float32", metric.student, batch, exact)
    forms.measure("fused, float32", plain, 64, exact)
    forms.measure("fused, float32", plain, 256, exact)
    forms.measure("fused, float32, channels last", last, 64, exact, True)
    forms.measure("fused, TF32", plain, 64, nullcontext)
    forms.measure("fused, TF32, channels last", last, 64, nullcontext, True)
    half = partial(torch.autocast, "cuda", torch.float16)
    forms.measure("student, float16 autocast, channels last", metric.student, 64, half, True)
    forms.measure("fused, float16 autocast, channels last", last, 64, half, True)
    forms.measure(
        "fused, bfloat16 autocast, channels last", last, 64, partial(torch.autocast, "cuda", torch.bfloat16), True
    )
    whole = halved()
    forms.measure("float16 weights", whole.to(memory_format=torch.contiguous_format), 64, exact)
    whole = whole.to(memory_format=torch.channels_last)
    forms.measure("float16 weights, channels last", whole, 64, exact, True)
    forms.measure("float16 weights, channels last", whole, 256, exact, True)


def halved() -> Any:
    """Return the student as a metric in half precision has it."""
    return leafiqa.create_metric("leaf", device="cuda", dtype=torch.float16).student


def recorded(metric: Metric, forms: Forms) -> None:
    """Measure the network recorded as a CUDA graph, and compiled."""
    student, whole = metric.student, halved()
    forms.measure("student, float32", student, 1, exact)
    forms.measure("student, float32", student, 64, exact)
    forms.measure("float16 weights, channels last", whole, 1, exact, True)
    forms.measure("float16 weights, channels last", whole, 64, exact, True)
    for batch in (1, 16, 64):
        forms.measure("student, float32, CUDA graph", _Replayed(student), batch, exact)
        forms.measure("float16 weights, channels last, CUDA graph", _Replayed(whole), batch, exact, True)
    folded: Any = fused(metric, torch.channels_last)
    folded.backbone.half()
    folded.head.half()
    forms.measure("float16 weights, folded, channels last", folded, 64, exact, True)
    for name, network, last in (
        ("student, float32, compiled", student, False),
        ("float16 weights, channels last, compiled", whole, True),
        ("float16 weights, folded, channels last, compiled", folded, True),
    ):
        torch._dynamo.reset()
        forms.measure(name, torch.compile(network), 64, exact, last)
    torch._dynamo.reset()
    forms.measure(
        "student, float32, compiled, its own CUDA graph", torch.compile(student, mode="reduce-overhead"), 1, exact
    )


_WAYS = {
    "tensor on the GPU, 64 of 512x512": "batch = torch.stack(pictures[:64]).cuda()\ntimed(lambda: metric(batch), 64)",
    "tensor on the host, 64 of 512x512": "batch = torch.stack(pictures[:64])\ntimed(lambda: metric(batch), 64)",
    "metric(path), one by one": "timed(lambda: [metric(path) for path in paths[:48]], 48)",
    "metric(paths)": "timed(lambda: metric(paths), len(paths))",
    "leafiqa.score(paths)": "timed(lambda: leafiqa.score(paths, metric), len(paths))",
    "metric(paths), 12 megapixels": "timed(lambda: metric(large), len(large))",
}
_PRELUDE = """
import sys, time, glob, json
import numpy as np, torch, leafiqa
from PIL import Image
paths = sorted(glob.glob(sys.argv[1] + "/*.jpg"))
large = sorted(glob.glob(sys.argv[2] + "/*.jpg"))
pictures = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).contiguous() for path in paths[:64]]
found = {}
def timed(work, images):
    work()
    times = []
    for _ in range(3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return images / min(times)
metric = leafiqa.create_metric("leaf", device="cuda", dtype=getattr(torch, sys.argv[3]))
"""


def ways(folder: Path, large: Path, dtype: str, root: Path) -> dict[str, float]:
    """Return images a second of each way of scoring, by the version that is in `root`."""
    code = _PRELUDE + "".join(
        f"{line}\n" if not line.startswith("timed") else f"found[{name!r}] = {line}\n"
        for name, lines in _WAYS.items()
        for line in lines.split("\n")
    )
    code += "print(json.dumps({name: round(speed) for name, speed in found.items()}))"
    environment = {**os.environ, "PYTHONPATH": f"{root.resolve()}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", code, str(folder), str(large), dtype]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    if done.returncode:
        return {"error": done.stderr[-1500:]}  # type: ignore[dict-item]
    print(dtype, root.name, done.stdout, file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def _banded(images: torch.Tensor, bands: dict[int, list[tuple[int, int, torch.Tensor]]]) -> torch.Tensor:
    """Resize by banded matrix products, whose matrices are there."""
    made = images.float() / 255
    for dimension, of in bands.items():
        parts = []
        for start, stop, weights in of:
            piece = made.narrow(dimension, start, stop - start)
            parts.append(piece @ weights if dimension == 3 else weights.T @ piece)
        made = torch.cat(parts, dimension)
    return made


@torch.no_grad()
def resizing() -> dict[str, Any]:
    """Compare torch's kernel with banded matrix products."""
    found = {}
    for shape, target in (
        ((64, 3, 512, 512), (384, 384)),
        ((1, 3, 512, 512), (384, 384)),
        ((16, 3, 1080, 1920), (288, 512)),
        ((1, 3, 3000, 4000), (320, 448)),
        ((1, 3, 3000, 12000), (192, 768)),
    ):
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
        expected = resize(images[:1].cpu(), *target)
        place = torch.device("cuda")
        bands = {3: list(_make_bands(shape[3], target[1], place)), 2: list(_make_bands(shape[2], target[0], place))}
        ways = {"bands": partial(_banded, images, bands), "kernel": partial(resize, images, *target)}
        found[str(shape)] = {}
        with exact_float32(place):
            for name, work in ways.items():
                off = float((work()[:1].cpu() - expected).abs().max())
                found[str(shape)][name] = {"images_a_second": round(rate(work, shape[0], 0.2)), "off": round(off, 7)}
        print(shape, found[str(shape)], file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; the rest of FILE is kept"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU")
    results: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "cores": cores()}
    if arguments.json and arguments.json.exists():
        kept = json.loads(arguments.json.read_text(encoding="utf-8"))
        if any(kept[name] != value for name, value in results.items()):
            raise SystemExit(f"{arguments.json} is of another machine; name another file")
        results = kept

    def note(name: str, found: Any) -> None:
        """Keep a part's results, for what comes after it may take too long."""
        results[name] = found
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as name:
        folder, large = Path(name) / "small", Path(name) / "large"
        folder.mkdir()
        large.mkdir()
        paths = draw(folder, _FILES)
        for number in range(_LARGE):
            if number < 6:
                with Image.open(paths[number]) as picture:
                    picture.resize((4000, 3000), Image.Resampling.BICUBIC).save(large / f"{number}.jpg", quality=90)
            else:
                (large / f"{number}.jpg").symlink_to(large / f"{number % 6}.jpg")
        if "ways" in arguments.parts:
            note("ways, float32", ways(folder, large, "float32", ROOT))
            note("ways, float16", ways(folder, large, "float16", ROOT))
        if arguments.before:
            note("ways before, float32", ways(folder, large, "float32", arguments.before))
        metric = leafiqa.create_metric("leaf", device="cpu")
        pixels = [np.array(Image.open(path)) for path in paths[:64]]
        pictures = metric.preprocess.resize(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
        with torch.no_grad():
            expected = torch.cat([metric.student(part) for part in pictures.split(8)]).sigmoid()
        metric.cuda()
        if "resizing" in arguments.parts:
            note("resizing", resizing())
        for name, measure in (("networks", networks), ("recorded", recorded)):
            if name in arguments.parts:
                measure(metric, Forms(pictures.cuda(), expected, partial(note, name)))
    report(results, arguments.json)


if __name__ == "__main__":
    main()
