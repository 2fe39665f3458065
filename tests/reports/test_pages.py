"""Pages: hostile names and prompts, size, what they show and count, and how they behave in a real browser."""

import html
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import leafiqa
from leafiqa.errors import InputError, OutputError
from leafiqa.reports.charts import Axis, axis_over, distribution, draw_curves, whiskers
from leafiqa.reports.pages import link, shown
from leafiqa.scoring.rows import Row
from leafiqa.scoring.scores import Scores
from tests.browser import browser, opened  # noqa: F401
from tests.conftest import invoke, make_picture
from tests.generators.folders import brightness, flat, grey

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{7*7}}\"' a=b"


class Elements(HTMLParser):
    """Collects a page's elements and checks that attributes are what they seem."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Three generators of twelve prompts with two seeds, hostile names and prompts among them."""
    folder = tmp_path_factory.mktemp("generated")
    lines = ["image,generator,prompt,seed"]
    rng = np.random.default_rng(0)
    for g, name in enumerate(("a", "b", HOSTILE)):
        for number in range(12):
            prompt = HOSTILE if number == 3 else f"a cat number {number}"
            for seed in range(2):
                file = f"g{g}_{number}_{seed}{'<b>&' if number == 5 else ''}.png"
                grey(folder / file, int(60 + 30 * g + 5 * number + rng.integers(0, 20)))
                lines.append(
                    ",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in (file, name, prompt, str(seed)))
                )
    (folder / "broken.png").write_bytes(b"no picture")
    lines.append("broken.png,a,a cat number 0,2")
    (folder / "pictures.csv").write_text("\n".join(lines))
    return folder, leafiqa.compare(folder / "pictures.csv", brightness)


def test_hostile_names_and_prompts_stay_text(compared, tmp_path):
    _, found = compared
    page = leafiqa.report(found, tmp_path / "page.html")
    text = page.read_text()
    elements = Elements(text)
    assert [list(attributes) for attributes in elements.of("script")] == [["type", "id"], []]
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert html.escape("<script>document.title") in text.replace("&#39;", "'")
    assert "{{7*7}}" in html.unescape(text) and "49" not in re.findall(r"<h1>(.*?)</h1>", text)[0]
    data = re.search(r'<script type="application/json" id="result">(.*?)</script>', text, re.S).group(1)
    assert "<" not in data
    assert HOSTILE in {of["name"] for of in json.loads(data)["metrics"][0]["generators"]}


def test_a_page_is_one_file_whose_policy_allows_nothing_from_elsewhere(compared, tmp_path):
    page = leafiqa.report(compared[1], tmp_path / "page.html")
    elements = Elements(page.read_text())
    policy = next(of["content"] for of in elements.of("meta") if of.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy
    assert elements.of("link") == [] and not any("style" in attributes for _, attributes in elements.found)
    for image in elements.of("img"):
        assert image["alt"] and int(image["width"]) <= 256 and int(image["height"]) <= 256
        assert image["loading"] == "lazy"
        assert image.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
    ids = [of["id"] for _, of in elements.found if "id" in of]
    assert len(ids) == len(set(ids))
    # A picture that stands in several places is embedded once.
    sources = [image["src"] for image in elements.of("img") if "src" in image]
    copies = {image["data-of"] for image in elements.of("img") if "data-of" in image}
    assert len(sources) == len(ids) - len({i for i in ids if not re.fullmatch(r"p\d+", i)}) and copies <= set(ids)
    assert all(cell.get("scope") for cell in elements.of("th"))


def test_links_lead_to_the_pictures_wherever_the_page_lies(compared, tmp_path):
    _, found = compared
    (tmp_path / "deep").mkdir()
    page = leafiqa.report(found, tmp_path / "deep" / "page.html")
    from urllib.parse import unquote

    targets = {of["href"] for of in Elements(page.read_text()).of("a") if "picture" in of.get("class", "")}
    assert targets and all((page.parent / unquote(target)).is_file() for target in targets)
    assert link("/x/javascript:alert(1).png", "/x/p.html") == "./javascript%3Aalert%281%29.png"


def test_what_is_not_shown_is_counted(compared, tmp_path):
    _, found = compared
    total = len({sample.image for sample in found.samples.samples}) - 1
    page = leafiqa.report(found, tmp_path / "page.html", max_images=10)
    elements = Elements(page.read_text())
    assert len([image for image in elements.of("img") if "src" in image]) == 10
    assert f"{total - 10} picture(s) that have a place here are not shown" in page.read_text()
    assert "not shown here" in page.read_text()
    none = leafiqa.report(found, tmp_path / "none.html", max_images=0)
    assert Elements(none.read_text()).of("img") == []


def test_thumbnails_beside_the_page(compared, tmp_path):
    _, found = compared
    page = leafiqa.report(found, tmp_path / "page.html", thumbnails="beside")
    sources = {image["src"] for image in Elements(page.read_text()).of("img") if "src" in image}
    assert sources and all((tmp_path / source).is_file() for source in sources)
    assert "data:image" not in page.read_text()
    with pytest.raises(OutputError, match="exists already"):
        leafiqa.report(found, tmp_path / "page.html", thumbnails="beside")
    leafiqa.report(found, tmp_path / "page.html", thumbnails="beside", overwrite=True, max_images=3)
    assert len(list((tmp_path / "page_thumbnails").glob("*.jpg"))) == 3
    (tmp_path / "other_thumbnails").mkdir()
    (tmp_path / "other_thumbnails" / "00000.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError, match="holds no thumbnails of leafiqa"):
        leafiqa.report(found, tmp_path / "other.html", thumbnails="beside", overwrite=True)
    assert (tmp_path / "other_thumbnails" / "00000.jpg").read_bytes() == b"mine"


def test_nothing_of_others_is_replaced(compared, tmp_path):
    _, found = compared
    (tmp_path / "mine.html").write_text("<!doctype html><p>mine")
    with pytest.raises(OutputError, match="not written by leafiqa"):
        leafiqa.report(found, tmp_path / "mine.html", overwrite=True)
    for wrong, message in (
        ({"output": tmp_path / "p.pdf"}, "must be a page"),
        ({"thumbnails": "inside"}, "thumbnails must be one of embed, beside"),
        ({"max_images": -1}, "max_images must be a whole number"),
        ({"metric": "leaf"}, "for files that are still to be scored"),
    ):
        with pytest.raises(InputError, match=message):
            leafiqa.report(found, **{"output": tmp_path / "p.html", **wrong})


def test_a_folder_alone(tmp_path):
    for number in range(5):
        Image.fromarray(make_picture(seed=number)).save(tmp_path / f"{number}.jpg")
    (tmp_path / "broken<i>.jpg").write_bytes(b"no")
    done = invoke("report", tmp_path, "-o", tmp_path / "page.html")
    assert done.returncode == 1 and "page written to" in done.stderr
    text = (tmp_path / "page.html").read_text()
    assert "5 pictures, median score" in text and "1 could not be scored" in text
    assert "broken&lt;i&gt;.jpg" in text
    assert len(Elements(text).of("img")) == 5
    assert invoke("report", tmp_path, "-o", tmp_path / "page.html").returncode == 2


def test_generators_by_the_same_command(tmp_path):
    for name, seed in (("a", 0), ("b", 10)):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(make_picture(seed=seed + number)).save(tmp_path / name / f"{number}.jpg")
    done = invoke("report", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}", "-o", tmp_path / "p.html", "--title", "T & U")
    assert done.returncode == 0
    assert "<h1>T &amp; U</h1>" in (tmp_path / "p.html").read_text()


def test_odd_text_is_made_visible():
    assert shown("a\nb\u202ec\x1b[2J") == "a\\nb\\u202ec\\x1b[2J"
    assert shown(b"caf\xe9.png".decode("utf-8", "surrogateescape")) == "caf\ufffd.png"


def test_charts_put_values_where_they_belong():
    axis = Axis(0, 1, 10, 110)
    assert [axis(0), axis(0.5), axis(1)] == [10, 60, 110]
    assert [label for _, label in axis.ticks()] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert axis_over([0.5, 0.5], 0, 10).low < 0.5 < axis_over([0.5, 0.5], 0, 10).high
    shape = distribution("x", np.array([0.1, 0.9, 0.9]), axis, 40)
    assert shape.median == 100 and shape.path.count("L") == 2 * 48 + 1
    marks = whiskers([("a", 0.5, (0.4, 0.7)), ("b", float("nan"), (float("nan"),) * 2)], width=100)
    assert list(marks.by_name) == ["a"]
    assert marks.by_name["a"].low < marks.by_name["a"].middle < marks.by_name["a"].high
    drawn = draw_curves([("a", [(1, 0.2), (2, 0.4)]), ("b", [(1, 0.2), (2, 0.4)])])
    assert abs(drawn.curves[0].label_y - drawn.curves[1].label_y) >= 15
    assert drawn.curves[0].dash != drawn.curves[1].dash


def test_in_a_browser(compared, tmp_path, browser):  # noqa: F811
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    _, found = compared
    page = leafiqa.report(found, tmp_path / "page.html")
    for width in (1280, 390):
        complaints, requests = opened(browser, page, width)
        assert complaints == [] and len([one for one in requests if '"http' in one]) == 0
        assert browser.title == shown(f"Image generators: {', '.join(found.samples.generators)}")
        wide = browser.execute_script(
            "return [...document.body.querySelectorAll('*')].filter(e => !e.closest('.scroll') && "
            f"e.getBoundingClientRect().right > {width}).map(e => e.outerHTML.slice(0, 80))"
        )
        assert wide == [] and browser.execute_script("return document.documentElement.scrollWidth") <= width
        # Every picture is there, those copied from another place too.
        broken = "return [...document.images].filter(i => { i.loading = 'eager'; return !i.src; }).length"
        assert browser.execute_script(broken) == 0
    rows = browser.find_elements(By.CSS_SELECTOR, "#prompts tbody tr")
    assert len(rows) == 12
    opened(browser, page)
    browser.find_element(By.ID, "filter").send_keys("number 7")
    assert browser.find_element(By.ID, "count").text == "1 of 12 prompts"
    shown_rows = [r.text for r in browser.find_elements(By.CSS_SELECTOR, "#prompts tbody tr") if r.is_displayed()]
    assert len(shown_rows) == 1 and "number 7" in shown_rows[0]
    browser.find_element(By.ID, "filter").send_keys(Keys.BACKSPACE * 10, Keys.ESCAPE)
    browser.find_element(By.CSS_SELECTOR, "#sort option[value=spread]").click()
    spreads = [float(of) for of in browser.execute_script(
        "return [...document.querySelectorAll('#prompts tbody tr')].map(r => r.dataset.spread)"
    )]  # fmt: skip
    assert spreads == sorted(spreads, reverse=True)
    body = browser.find_element(By.TAG_NAME, "body")
    browser.execute_script("document.activeElement.blur()")
    body.send_keys("jj")
    place = "return [...document.querySelectorAll('#prompts tbody tr')].indexOf(document.activeElement)"
    assert browser.execute_script(place) == 1
    browser.switch_to.active_element.send_keys("k")
    assert browser.execute_script(place) == 0
    browser.switch_to.active_element.send_keys("/")
    assert browser.execute_script("return document.activeElement.id") == "filter"


def test_thumbnails_beside_are_shown_by_a_browser(compared, tmp_path, browser):  # noqa: F811
    page = leafiqa.report(compared[1], tmp_path / "page.html", thumbnails="beside")
    complaints, _ = opened(browser, page)
    assert complaints == []
    browser.execute_script("for (const i of document.images) i.loading = 'eager'")
    loaded = "return [...document.images].filter(i => i.naturalWidth > 0).length"
    until = time.monotonic() + 10
    while browser.execute_script(loaded) < browser.execute_script("return document.images.length"):
        assert time.monotonic() < until, "pictures beside the page are not shown"
        time.sleep(0.1)


def test_five_thousand_pictures(tmp_path, browser):  # noqa: F811
    """Photographs of 512 pixels: below 30 MB, and open within two seconds."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    noise = [make_picture(512, 512, seed) for seed in range(20)]
    rows = []
    for number in range(5000):
        path = tmp_path / "ab"[number % 2] / f"{number // 2:05}.jpg"
        if number < 1700:
            Image.fromarray(np.roll(noise[number % 20], number, axis=1)).save(path, quality=90)
        rows.append(Row(str(path), float(rng.random()), metric="m", weights="0" * 12))
    Scores(rows).to_csv(tmp_path / "scores.csv")
    found = leafiqa.compare(tmp_path / "scores.csv")
    page = leafiqa.report(found, tmp_path / "page.html")
    assert page.stat().st_size < 30e6
    began = time.monotonic()
    complaints, _ = opened(browser, page)
    took = time.monotonic() - began
    assert complaints == [] and took < 4, took  # a busy machine gets twice the bar
    assert "of 2500 prompts are listed" in page.read_text()


def test_pages_are_found_from_the_package():
    folder = Path(leafiqa.__file__).parent / "reports" / "templates"
    assert {path.name for path in folder.iterdir()} >= {"base.html", "generators.html", "images.html", "style.css"}


def test_three_folders_in_one_command(tmp_path):
    for name in "abc":
        flat(tmp_path / name, [50, 90, 130, 170])
    arguments = [f"{name}={tmp_path / name}" for name in "abc"]
    done = invoke("compare", *arguments, "--html", tmp_path / "page.html")
    assert done.returncode == 0
    assert "No generator is clearly the best" in (tmp_path / "page.html").read_text()
