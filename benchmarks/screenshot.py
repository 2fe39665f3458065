"""Make the README's picture of a page: `python -m benchmarks.screenshot docs/images/compare.png`.

Three "generators" made from the two photographs that come with leafiqa: parts of them as they are, saved as a strongly
compressed JPEG, and blurred a little, two parts a prompt. Needs selenium, chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image, ImageFilter
from selenium import webdriver

import leafiqa

PROMPTS = 24


def parts(place: Path) -> None:
    """Write parts of the photographs: `place/GENERATOR/PROMPT/SEED.png`."""
    folder = Path(leafiqa.__file__).parent / "cli" / "pictures"
    photographs = {path.stem: Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))}
    for number in range(PROMPTS):
        name, whole = list(photographs.items())[number % len(photographs)]
        side = 2 * min(whole.size) // 3
        for seed in range(2):
            left = (number * 37 + 60 * seed) % (whole.width - side)
            top = (number * 23 + 40 * seed) % (whole.height - side)
            part = whole.crop((left, top, left + side, top + side)).resize((384, 384), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            part.save(buffer, "JPEG", quality=12)
            kinds = {
                "photo": part,
                "jpeg-12": Image.open(buffer).convert("RGB"),
                "soft": part.filter(ImageFilter.GaussianBlur(1.2 + (number % 3) / 2)),
            }
            for kind, image in kinds.items():
                target = place / kind / f"{name}, part {number:02}" / f"{seed}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                image.save(target)


def main() -> None:
    """Compare, write the page, take its picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--height", type=int, default=1500)
    arguments = parser.parse_args()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        parts(place / "out")
        found = leafiqa.compare(place / "out", cache=None)
        page = leafiqa.report(found, place / "page.html", title="Three ways to keep a photograph")
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            size = {"width": 1280, "height": arguments.height, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(page.as_uri())
            shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        finally:
            browser.quit()
    image = Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB").quantize(128)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    image.save(arguments.output, optimize=True)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
