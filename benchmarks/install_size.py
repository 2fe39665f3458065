"""What installing leafiqa brings beside torch, and what others bring: `python -m benchmarks.install_size`.

    python -m pip install pyiqa==0.1.16 torchmetrics 'leafiqa[onnx]'
    python -m benchmarks.install_size --json benchmarks/results/install_size.json

Sizes on disk of a package and of all that it depends on, less what torch and torchvision bring; read off the packages
that are installed here. leafiqa itself is counted without its environment: the files of this checkout's package and the
bundled weights.
"""

from __future__ import annotations

import argparse
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.common import report

ROOT = Path(__file__).resolve().parents[1]
ASKED = ("leafiqa", "leafiqa[onnx]", "torchmetrics", "pyiqa")
GIVEN = ("torch", "torchvision")


def closure(asked: str) -> dict[str, Distribution]:
    """Return the installed packages that a requirement brings, by name.

    Raises:
        SystemExit: one of them is not installed here.
    """
    found: dict[str, Distribution] = {}
    waiting = [Requirement(asked)]
    done = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, tuple(sorted(wanted.extras))) in done:
            continue
        done.add((name, tuple(sorted(wanted.extras))))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name}, which {asked} needs, is not installed here") from None
        for line in found[name].requires or []:
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *wanted.extras)]
            if needed.marker is None or any(needed.marker.evaluate(one) for one in environments):
                waiting.append(needed)
    return found


def megabytes(name: str, of: Distribution) -> float:
    """Return the size of a package's files."""
    if name == "leafiqa":
        files = [*(ROOT / "leafiqa").rglob("*"), *(ROOT / "weights").glob("*")]
        places = [file for file in files if "__pycache__" not in file.parts]
    else:
        places = [Path(str(of.locate_file(file))) for file in of.files or []]
    return sum(place.stat().st_size for place in places if place.is_file()) / 1e6


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    given = {name for asked in GIVEN for name in closure(asked)}
    results: dict[str, Any] = {}
    for asked in ASKED:
        more = {name: of for name, of in closure(asked).items() if name not in given}
        results[asked] = {
            "packages": len(more),
            "megabytes": round(sum(megabytes(name, of) for name, of in more.items())),
            "names": sorted(more),
        }
    report(results, arguments.json)


if __name__ == "__main__":
    main()
