"""Write the tables of docs/speed.md and docs/cluster.md: `python -m benchmarks.speed_tables`."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common import filled

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "speed.md"
CLUSTER_PAGE = ROOT / "docs" / "cluster.md"
RESULTS = ROOT / "benchmarks" / "results"


def ways_table() -> str:
    """Return how long a picture takes in each way, as Markdown."""
    found = json.loads((RESULTS / "throughput.json").read_text(encoding="utf-8"))["throughput"]
    lines = [f"| way ({found['images']} pictures, {found['rounds']} rounds) | times the network |", "|---|---:|"]
    for name, times in found["times_network"].items():
        lines.append(f"| {name} | {times:.2f} |")
    return "\n".join(lines)


def draft_table() -> str:
    """Return what reduced decoding changes, as Markdown."""
    found = json.loads((RESULTS / "draft.json").read_text(encoding="utf-8"))
    return "\n".join(
        [
            "| photographs | mean difference of scores | largest difference | time, of whole decoding |",
            "|---:|---:|---:|---:|",
            f"| {found['photographs']} | {found['mean_difference']:.4f} | {found['largest_difference']:.4f} | "
            f"{found['time_share']:.2f} |",
        ]
    )


def core_table() -> str:
    """Return what pictures cost a core, and ten million of them, as Markdown."""
    found = json.loads((RESULTS / "throughput.json").read_text(encoding="utf-8"))["core_seconds"]
    lines = ["| pictures | core-seconds each | ten million, core-hours | on 64 cores, hours |", "|---|---:|---:|---:|"]
    for name, seconds in found.items():
        hours = 1e7 * seconds / 3600
        lines.append(f"| {name} | {seconds:.3f} | {hours:.0f} | {hours / 64:.1f} |")
    return "\n".join(lines)


def sizes_table() -> str:
    """Return what packages bring beside torch, as Markdown."""
    found = json.loads((RESULTS / "install_size.json").read_text(encoding="utf-8"))
    lines = ["| | packages | MB on disk |", "|---|---:|---:|"]
    return "\n".join([*lines, *(f"| `{name}` | {of['packages']} | {of['megabytes']} |" for name, of in found.items())])


def gpu_table() -> str:
    """Return how many images a second a GPU scores, beside its bare network, as Markdown."""
    found = json.loads((RESULTS / "gpu_speed.json").read_text(encoding="utf-8"))
    bare = found["networks"]["student, float32, 64"]["images_a_second"]
    lines = [
        f"| {found['card']}, {found['cores']} cores: images a second | float32 | of the bare network, {bare} "
        "| float16 | float32, before |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, speed in found["ways, float32"].items():
        others = f"{found['ways, float16'][name]} | {found['ways before, float32'][name]}"
        lines.append(f"| {name} | {speed} | {speed / bare:.2f} | {others} |")
    return "\n".join(lines)


def gpu_networks_table() -> str:
    """Return how many images a second forms of the bare network do on a GPU, as Markdown."""
    found = json.loads((RESULTS / "gpu_speed.json").read_text(encoding="utf-8"))["networks"]
    lines = ["| network | images a second | largest difference of scores |", "|---|---:|---:|"]
    for name, of in found.items():
        form, _, batch = name.rpartition(", ")
        if batch == "64" and "images_a_second" in of:
            lines.append(f"| {form} | {of['images_a_second']} | {of['off']:.0e} |")
    return "\n".join(lines)


def gpu_recorded_table() -> str:
    """Return what recording a network as a CUDA graph and compiling it gain on a GPU, as Markdown."""
    found = json.loads((RESULTS / "gpu_speed.json").read_text(encoding="utf-8"))["recorded"]
    lines = [
        "| network, images in a batch | images a second | difference of scores | seconds until the first scores |",
        "|---|---:|---:|---:|",
    ]
    for name, of in found.items():
        lines.append(f"| {name} | {of['images_a_second']} | {of['off']:.0e} | {of['seconds_of_first']} |")
    return "\n".join(lines)


def renewed(page: Path, tables: dict[str, str]) -> str:
    """Return a page with its tables made anew."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        text = filled(text, name, table)
    return text


def pages() -> dict[Path, str]:
    """Return the pages with their tables made anew."""
    return {
        PAGE: renewed(
            PAGE,
            {
                "ways": ways_table(),
                "gpu": gpu_table(),
                "gpu_networks": gpu_networks_table(),
                "gpu_recorded": gpu_recorded_table(),
                "draft": draft_table(),
                "sizes": sizes_table(),
            },
        ),
        CLUSTER_PAGE: renewed(CLUSTER_PAGE, {"core": core_table()}),
    }


if __name__ == "__main__":
    for place, made in pages().items():
        place.write_text(made, encoding="utf-8")
