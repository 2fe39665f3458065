"""Check what an install into an empty environment brought: how many packages, and the weights inside."""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

MOST = 25


def closure(name: str, found: set[str]) -> set[str]:
    """Collect the installed packages that `name` depends on, itself included."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found:
        return found
    try:
        requirements = distribution(name).requires or []
    except PackageNotFoundError:
        return found
    found.add(key)
    for requirement in requirements:
        if "extra ==" not in requirement or key == "cuda-toolkit":
            closure(re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0], found)
    return found


def main() -> None:
    """Print the counts; exit with an error if there are too many packages or no weights."""
    names = {re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower() for item in distributions()}
    beyond = sorted(names - closure("torch", set()) - {"pip", "setuptools", "wheel", "leafiqa"})
    print(f"{len(names)} packages, {len(beyond)} beyond torch's own: {', '.join(beyond)}")
    if len(beyond) > MOST:
        sys.exit(f"more than {MOST} packages beyond torch's own")
    package = Path(str(distribution("leafiqa").locate_file("leafiqa")))
    weights = sorted((package / "weights").glob("*.safetensors"))
    if not weights:
        sys.exit("the installed package lacks its weights")
    print("weights:", *(f"{file.name} ({file.stat().st_size / 1e6:.1f} MB)" for file in weights))


if __name__ == "__main__":
    main()
