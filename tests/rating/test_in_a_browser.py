"""Rating in a real browser: by keyboard, with undo, a reload, two raters at once, and the server killed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter

from leafiqa.rating.answers import read_answers
from leafiqa.rating.questions import WARM_UP
from tests.browser import browser  # noqa: F401
from tests.conftest import make_picture

pytest.importorskip("uvicorn")


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(36):
        image = Image.fromarray(make_picture(120, 160, number % 6))
        image.filter(ImageFilter.GaussianBlur(number / 9)).save(folder / f"{number:02}.png")
    return folder


class Running:
    """`leafiqa rate` as a process of its own."""

    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "leafiqa", "rate", "photographs", "-o", "ratings.csv", *options]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
        )
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), self.process.stderr.read()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def until(true, seconds=15):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = true()
        except Exception:
            found = None
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def begin(browser, address, rater):  # noqa: F811
    """Open the page and give a name."""
    browser.get(address)
    if rater is not None:
        field = until(lambda: browser.find_element("id", "name"))
        until(field.is_displayed)
        field.send_keys(rater)
        field.submit()
    until(lambda: browser.find_element("id", "rate").is_displayed())


def number_of(browser):  # noqa: F811
    return browser.execute_script("return document.body.dataset.number")


def press(browser, key):  # noqa: F811
    """Press a key once the picture is there, and wait for the next question."""
    until(lambda: browser.execute_script("const i = document.querySelector('#stage img'); return i && i.naturalWidth"))
    before = number_of(browser)
    browser.find_element("tag name", "body").send_keys(key)
    until(lambda: number_of(browser) != before or browser.find_element("id", "end").is_displayed())


def test_thirty_pictures_by_keyboard(browser, photographs, tmp_path):  # noqa: F811
    from selenium.webdriver.common.keys import Keys

    running = Running(tmp_path, "-n", "26")
    begin(browser, running.address, "ann")
    assert browser.find_element("id", "phase").text == "to warm up, not counted"
    given = []
    rng = np.random.default_rng(0)
    for place in range(30):
        key = str(rng.integers(1, 6))
        press(browser, key)
        given.append(key)
        if place == 9:  # take back the last answer, and give another
            press(browser, Keys.BACKSPACE)
            press(browser, "1")
            given[-1] = "1"
        if place == 15:  # reload in the middle: the same question is asked
            before = browser.execute_script("return document.querySelector('#stage img').src")
            browser.refresh()
            until(lambda: browser.find_element("id", "rate").is_displayed())
            until(lambda: browser.execute_script("return document.querySelector('#stage img')") is not None)
            assert browser.execute_script("return document.querySelector('#stage img').src") == before
    answers = read_answers(tmp_path / "ratings.csv")
    assert [a.value for a in answers.answers] == given
    assert [a.phase for a in answers.answers].count("warm-up") == WARM_UP
    assert all(0 <= a.seconds < 60 for a in answers.answers)
    # Never scaled up, and real pixels on demand; keys that mean nothing do nothing.
    size = "const i = document.querySelector('#stage img'); return [i.clientWidth, i.naturalWidth]"
    shown, real = until(lambda: browser.execute_script(size))
    assert shown == real == 160
    browser.find_element("tag name", "body").send_keys("9x")
    browser.find_element("tag name", "body").send_keys("z")
    assert browser.execute_script("return document.getElementById('stage').classList.contains('real')")
    assert len(read_answers(tmp_path / "ratings.csv").answers) == 30
    until(lambda: "pictures" in browser.find_element("id", "known").text)  # it is computed while one goes on
    complaints = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert [text for text in complaints if "favicon" not in text] == []
    code, out, err = running.interrupt()
    assert code == 0 and "1 rater(s)" in out and "mos.csv" in err
    assert (tmp_path / "mos.csv").read_text().startswith("image,mos,mos_se,mos_std,n,")


def test_two_raters_at_once(browser, photographs, tmp_path):  # noqa: F811
    running = Running(tmp_path, "-n", "10", "--ask", "both")
    first = browser.current_window_handle
    begin(browser, running.address, "ann")
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    begin(browser, running.address, "bob")
    for place in range(8):
        browser.switch_to.window(first)
        press(browser, str(1 + place % 5))
        browser.switch_to.window(second)
        press(browser, str(5 - place % 5))
    browser.close()
    browser.switch_to.window(first)
    found = read_answers(tmp_path / "ratings.csv")
    assert [len([a for a in found.answers if a.rater == name]) for name in ("ann", "bob")] == [8, 8]
    assert [a.value for a in found.answers if a.rater == "ann"] == [str(1 + place % 5) for place in range(8)]
    running.kill()


def test_the_server_is_killed_after_any_answer(browser, photographs, tmp_path):  # noqa: F811
    given = 0
    for round_ in range(3):
        running = Running(tmp_path, "-n", "20")
        begin(browser, running.address, "ann")
        for _ in range(2 + round_):
            press(browser, "4")
            given += 1
        running.kill()
        browser.find_element("tag name", "body").send_keys("2")  # pressed while nobody listens
        trouble = until(
            lambda: browser.find_element("id", "trouble").is_displayed() and browser.find_element("id", "trouble")
        )
        assert "Nothing is lost" in trouble.text
        answers = read_answers(tmp_path / "ratings.csv").answers
        assert len(answers) == given and {a.value for a in answers} == {"4"}
        first = [a.image for a in answers if a.phase == "first"]
        assert len(first) == len(set(first))


def test_on_a_phone_by_touch_with_skip_and_end(browser, photographs, tmp_path):  # noqa: F811
    running = Running(tmp_path, "-n", "3")
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        begin(browser, running.address, "zoë")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        until(lambda: browser.execute_script("return document.querySelector('#stage img').naturalWidth"))
        browser.find_element("id", "skip").click()
        until(lambda: browser.find_element("id", "reasons").is_displayed())
        before = number_of(browser)
        browser.find_element("css selector", "#reason-list button").click()
        until(lambda: number_of(browser) != before)
        while not browser.find_element("id", "end").is_displayed():
            before = number_of(browser)
            browser.find_element("css selector", "#answers button[data-value='4']").click()
            until(lambda: number_of(browser) != before or browser.find_element("id", "end").is_displayed())  # noqa: B023
        browser.find_element("id", "finish").click()
        out, err = running.process.communicate(timeout=60)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert running.process.returncode == 0 and "zoë: 3 ratings" in out and "1 skipped" in out
    assert (tmp_path / "mos.csv").exists() and "calibrate" in err
