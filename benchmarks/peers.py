"""Speed of leafiqa beside other no-reference metrics, on the same pictures and threads: ratios within one run.

    python -m pip install pyiqa==0.1.16 torchmetrics 'leafiqa[onnx]'
    python -m benchmarks.peers --json benchmarks/results/peers.json

Each begins at a decoded picture, uint8 in memory. Networks of others have random weights, on which speed does not
depend, as no weights are downloaded; their preprocessing is their own. Each metric runs in a process of its own, one
after the other, in several rounds over all of them, and takes the median over the rounds of its time over `leaf`'s in
the same round. What takes longer than the limit, or more memory, is said. brisque and niqe have no network; their
parameters are random, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import report

SIZES = {"512x512": (512, 512), "1080p": (1080, 1920), "12MP": (3000, 4000)}
OURS = ("leaf", "leaf_lite2.general", "leaf (onnx)", "leaf_lite2.general (onnx)", "leaf (onnx, list)")
PYIQA = ("nima", "musiq", "topiq_nr", "arniqa", "dbcnn", "clipiqa+", "hyperiqa", "maniqa", "brisque", "niqe")
TORCHMETRICS = ("clip_iqa",)
_LIMIT_S = 40.0
_MEMORY = 16 << 30
_LEAST_S = 1.0
# Pictures in a list, of which ONNX Runtime computes as many at the same time as there are threads.
_LIST = 8


def build(name: str, threads: int) -> Any:
    """Return a function from a decoded picture, `(H, W, 3)` uint8, to a score."""
    import torch

    if name in OURS:
        from leafiqa.scoring.backends import load

        return load(name.split(" ")[0], None, "cpu", "onnx" if "onnx" in name else "torch", threads=threads)
    metric = _clip_iqa() if name in TORCHMETRICS else _of_pyiqa(name)
    # Others take floats in [0, 1].
    return lambda pixels: metric(torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div_(255))


def _without_downloads() -> None:
    """Make pretrained networks random ones."""
    import timm
    import torch
    import torchvision

    create, fill = timm.create_model, torch.nn.Module.load_state_dict
    timm.create_model = lambda name, pretrained=False, **options: create(name, pretrained=False, **options)
    torchvision.models._api.WeightsEnum.get_state_dict = lambda self, *_, **__: None
    torch.nn.Module.load_state_dict = lambda self, state, *a, **k: fill(self, state, *a, **k) if state else None
    torch.hub.load_state_dict_from_url = lambda *_, **__: {}


def _of_pyiqa(name: str) -> Any:
    import numpy as np
    import scipy.io
    import torch

    _without_downloads()
    import pyiqa.archs.arch_util as util
    import pyiqa.utils.download_util as download

    for module in (util, download):
        module.load_file_from_url = lambda *_, **__: "random"
        module.load_pretrained_network = lambda *_, **__: None
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(36, 36))
    scipy.io.loadmat = lambda *_, **__: {"mu_prisparam": rng.normal(size=(1, 36)), "cov_prisparam": spread @ spread.T}
    if name == "brisque":
        torch.load = lambda *_, **__: (torch.randn(774, 1), torch.rand(774, 36))
    if name == "arniqa":
        torch.jit.load = lambda *_, **__: torch.nn.Linear(4096, 1)
    if name == "clipiqa+":
        import types

        # OpenAI's clip asks this module, which setuptools no longer brings, for the version of packaging.
        sys.modules.setdefault("pkg_resources", types.SimpleNamespace(packaging=__import__("packaging.version")))
        import pyiqa.archs.clip_model as clip_model

        clip = clip_model.CLIP(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12)
        clip_model.load = lambda *_, **__: clip.float().eval()
        torch.load = lambda *_, **__: torch.randn(16, 512)
    import pyiqa

    return pyiqa.create_metric(name, device="cpu")


def _clip_iqa() -> Any:
    import torch
    from torchmetrics.multimodal import clip_iqa as module
    from transformers import CLIPConfig, CLIPModel

    class Processor:
        """What CLIP's processor does to pictures, and tokens of some text; its vocabulary is a download."""

        def __call__(self, text: Any = None, images: Any = None, **_: Any) -> dict[str, Any]:
            found: dict[str, Any] = {}
            if text is not None:
                tokens = torch.randint(1, 49000, (len(text), 77))
                tokens[:, -1] = 49407
                found |= {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            if images is not None:
                pictures = torch.stack([image.float() for image in images])
                resized = torch.nn.functional.interpolate(pictures, size=224, mode="bicubic", antialias=True)
                found["pixel_values"] = resized
            return found

    model = CLIPModel(CLIPConfig()).eval()
    for name in ("get_image_features", "get_text_features"):
        setattr(model, name, _pooled(getattr(model, name)))
    for place in (module, sys.modules["torchmetrics.functional.multimodal.clip_iqa"]):
        if hasattr(place, "_get_clip_iqa_model_and_processor"):
            place._get_clip_iqa_model_and_processor = lambda *_, **__: (model, Processor())
    return module.CLIPImageQualityAssessment(model_name_or_path="openai/clip-vit-base-patch32", data_range=1.0)


def _pooled(features: Any) -> Any:
    """Return CLIP's features as a tensor, as releases of transformers before 5 did, which torchmetrics expects."""

    def pooled(*arguments: Any) -> Any:
        found = features(*arguments)
        return getattr(found, "pooler_output", found)

    return pooled


def work(name: str, size: str, threads: int, quick: bool) -> dict[str, float]:
    """Build a metric and time it; called in a process of its own."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    began = time.perf_counter()
    import torch

    torch.set_num_threads(threads)
    metric = build(name, threads)
    started = time.perf_counter() - began
    height, width = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 16, width // 16, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    pixels = (255 * smooth[0]).byte().permute(1, 2, 0).contiguous().numpy()
    del smooth
    count = _LIST if "list" in name else 1
    given = [pixels] * count if count > 1 else pixels
    with torch.no_grad():
        began = time.perf_counter()
        metric(given)
        times = [time.perf_counter() - began]
        if not (quick and times[0] > 5):
            times = []
            while len(times) < 2 or (sum(times) < _LEAST_S and len(times) < 30):
                began = time.perf_counter()
                metric(given)
                times.append(time.perf_counter() - began)
    with open("/proc/self/status") as file:
        peak = next(line for line in file if line.startswith("VmHWM:")).split()[1]
    return {"seconds": min(times) / count, "start": started, "mib": int(peak) / 1024}


def in_a_process(name: str, size: str, threads: int) -> dict[str, Any]:
    """Run `work` in a process; what it says, or why it says nothing."""
    command = [sys.executable, "-m", "benchmarks.peers", "--work", name, size, str(threads)]
    environment = {**__import__("os").environ, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, env=environment)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {_LIMIT_S:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        memory = "memory" in last.lower() or "alloc" in last.lower() or done.returncode < 0
        return {"failed": "out of memory" if memory else last[:200]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[2])
    parser.add_argument("--metrics", nargs="*", default=[*OURS, *PYIQA, *TORCHMETRICS])
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        name, size, threads = arguments.work
        print(json.dumps(work(name, size, int(threads), quick=True)))
        return
    results: dict[str, Any] = {"metrics": {}}
    if arguments.json and arguments.json.is_file():  # what is not measured now is kept
        results = json.loads(arguments.json.read_text(encoding="utf-8"))
    for threads in arguments.threads:
        for size in arguments.sizes:
            measured: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.metrics}
            for number in range(arguments.rounds):
                for name in arguments.metrics:
                    slow = number and (
                        "failed" in measured[name][0] or measured[name][0]["seconds"] > 20
                    )  # once tells enough
                    if not slow:
                        measured[name].append(in_a_process(name, size, threads))
                        print(threads, size, name, measured[name][-1], file=sys.stderr, flush=True)
            leaf = [one["seconds"] for one in measured["leaf"]]
            for name, rounds in measured.items():
                place = results["metrics"].setdefault(name, {}).setdefault(f"{threads} threads", {})
                if "failed" in rounds[0]:
                    place[size] = rounds[0]
                    continue
                ratios = [one["seconds"] / first for one, first in zip(rounds, leaf)]
                place[size] = {
                    "rounds": len(ratios),
                    "times_leaf": round(statistics.median(ratios), 2),
                    "start_s": round(statistics.median(one["start"] for one in rounds), 2),
                    "peak_mib": round(max(one["mib"] for one in rounds)),
                }
    report(results, arguments.json)


if __name__ == "__main__":
    main()
