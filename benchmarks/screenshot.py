"""Make the docs' pictures of pages: `python -m benchmarks.screenshot docs/images`.

Three "generators" made from the two photographs that come with leafiqa: parts of them as they are, saved as a strongly
compressed JPEG, and blurred a little, two parts a prompt. Needs selenium, chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import shutil
import tempfile
import threading
import time
import urllib.request
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


def browser() -> webdriver.Chrome:
    """Return a headless browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def sized(opened: webdriver.Chrome, width: int, height: int) -> None:
    """Give the page a size."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def save(opened: webdriver.Chrome, place: Path, colours: int) -> None:
    """Write what the browser shows as a small PNG."""
    shot = opened.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    image = Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB").quantize(colours)
    place.parent.mkdir(parents=True, exist_ok=True)
    image.save(place, optimize=True)
    print(f"{place}: {place.stat().st_size / 1000:.0f} kB")


def of_comparison(opened: webdriver.Chrome, place: Path, output: Path) -> None:
    """Take a picture of a comparison's page."""
    found = leafiqa.compare(place / "out", cache=None)
    page = leafiqa.report(found, place / "page.html", title="Three ways to keep a photograph")
    sized(opened, 1280, 1500)
    opened.get(page.as_uri())
    save(opened, output / "compare.png", 128)


def of_rating(opened: webdriver.Chrome, place: Path, output: Path) -> None:
    """Take pictures of the page that one rates on, at a desk and on a phone."""
    address: list[str] = []
    arguments = {"budget": 30, "ask": "both", "recursive": True, "device": "cpu", "started": address.append}
    session = threading.Thread(
        target=leafiqa.rate, args=(place / "out", place / "ratings.csv"), kwargs=arguments, daemon=True
    )
    session.start()
    while not address:
        time.sleep(0.1)

    def post(name: str, content: dict) -> dict:
        body = json.dumps({"rater": "ann", **content}).encode()
        request = urllib.request.Request(address[0] + name, body, {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request).read())

    def until(kind: str, least: int) -> None:
        """Answer until a question of this kind comes after so many answers."""
        state = post("state", {})
        while state["kind"] != kind or state["done"] < least:
            value = "tie" if state["kind"] == "comparison" else str(1 + state["done"] % 5)
            state = post("answer", {"number": state["number"], "value": value})

    time.sleep(30)  # the student looks at the pictures meanwhile
    for name, kind, least, size in (
        ("rate.png", "rating", 22, (1280, 800)),
        ("rate-two.png", "comparison", 24, (1280, 800)),
        ("rate-phone.png", "rating", 25, (390, 780)),
    ):
        until(kind, least)
        sized(opened, *size)
        opened.get(address[0])
        if fields := [field for field in opened.find_elements("id", "name") if field.is_displayed()]:
            fields[0].send_keys("ann")
            fields[0].submit()
        opened.execute_script("learn()")
        time.sleep(4)
        save(opened, output / name, 200)
    post("finish", {})
    session.join(20)


def main() -> None:
    """Make the folders, open the pages, take their pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="the folder for the pictures")
    parser.add_argument("--only", choices=["compare", "rate"])
    arguments = parser.parse_args()
    opened = browser()
    try:
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            parts(place / "out")
            if arguments.only != "rate":
                of_comparison(opened, place, arguments.output)
            if arguments.only != "compare":
                of_rating(opened, place, arguments.output)
    finally:
        opened.quit()


if __name__ == "__main__":
    main()
