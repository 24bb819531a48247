"""The web page at `/`, driven in headless Chromium against a running service."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

pytest.importorskip("selenium", reason="selenium is not installed (it is in the dev extra)")

from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.select import Select

from tests.e2e.browser import Page
from tests.toybundle import build_toy_bundle

ROOT = Path(__file__).parents[2]
WEB = ROOT / "service" / "web"
EXAMPLES = ROOT / "examples"
START_S = 120

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of its own, as `bindery serve` starts it, with the toy bundle and an empty data directory."""
    folder = tmp_path_factory.mktemp("service")
    bundle = build_toy_bundle(folder / "toy")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "bindery.cli.main",
        "serve",
        "--bundle",
        bundle,
        "--port",
        str(port),
        "--data-dir",
        folder / "data",
        "--threads",
        "1",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder) as process:
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/readyz", folder / "log")
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(address).is_success:
                return
        except httpx.TransportError:
            pass  # It does not listen yet.
        time.sleep(0.1)
    pytest.fail(f"the service does not start:\n{log.read_text(errors='replace')[-4000:]}")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not (browser and chromedriver):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield started
    started.quit()


@pytest.fixture
def page(driver: WebDriver, address: str) -> Iterator[Page]:
    yield Page(driver, address)
    # After each gesture of each test: nothing went wrong unseen, and nothing was asked of another host.
    assert [entry for entry in driver.get_log("browser") if not _is_a_told_refusal(entry)] == []
    assert _hosts_asked(driver) <= {urlsplit(address).netloc}


def _is_a_told_refusal(entry: dict[str, Any]) -> bool:
    """Chromium notes every reply of status 4xx; the page shows these to the person (and the tests look there)."""
    return entry["source"] == "network" and "status of 4" in entry["message"]


def _hosts_asked(driver: WebDriver) -> set[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme in {"http", "https", "ws", "wss"}}


@pytest.fixture
def junk(tmp_path: Path) -> Path:
    path = tmp_path / "junk.jpg"
    path.write_bytes(b"this is no picture " * 40)
    return path


def test_the_page_names_the_model_and_says_that_it_is_ready(page: Page) -> None:
    page.open()
    assert page.wait("#state[data-state=ready]").text == "Ready"
    assert "dimensions" in page.wait("#model").text
    assert page.texts(".model-modalities > span")


def test_a_chosen_file_gets_its_labels_with_bars_best_first(page: Page) -> None:
    page.open()
    page.choose("#classify", EXAMPLES / "elephant.jpg")
    page.wait(".bars .bar")
    page.write("#classify textarea", "elephant, accordion\nrain")
    page.click("#classify .button.primary")
    page.until(lambda: len(page.all(".bar-row")) == 3, "three labels were asked for")

    assert sorted(page.texts(".bar-label")) == ["accordion", "elephant", "rain"]
    shares = [float(bar.get_attribute("aria-valuenow")) for bar in page.all(".bars [role=meter]")]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)
    widths = [fill.rect["width"] for fill in page.all(".bars .bar-fill")]
    assert widths == sorted(widths, reverse=True)
    assert page.all(".bars [role=meter]")[0].get_attribute("aria-label") == page.texts(".bar-label")[0]


def test_a_dropped_file_is_classified_and_shown(page: Page) -> None:
    page.open()
    page.drop("#classify .drop", EXAMPLES / "accordion.jpg")
    page.wait(".bars .bar")
    assert page.wait("#classify .frame img").get_attribute("alt") == "accordion.jpg"
    assert page.texts("#classify .caption .file-name") == ["accordion.jpg"]


@pytest.mark.parametrize(
    ("name", "modality", "element"),
    [
        ("dog.wav", "audio", "audio"),
        ("kitchen.mp4", "video", "video"),
        ("bathroom-depth.png", "depth", "img"),
        ("cars-thermal.jpg", "thermal", "img"),
    ],
)
def test_the_modality_is_suggested_from_the_file_and_its_name(page: Page, name: str, modality: str, element: str) -> None:
    page.open()
    page.choose("#classify", EXAMPLES / name)
    page.wait(f"#classify .frame {element}")
    page.wait(".bars .bar")
    assert page.driver.execute_script("return document.querySelector('#classify .pill input:checked').value") == modality


def test_the_arrow_keys_choose_another_modality(page: Page) -> None:
    page.open()
    page.choose("#classify", EXAMPLES / "elephant.jpg")
    page.wait(".bars .bar")
    chosen = page.all("#classify .pill input:checked")[0]
    before = chosen.get_attribute("value")
    chosen.send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: page.all("#classify .pill input:checked")[0].get_attribute("value") != before, "the choice did not move")
    page.until(lambda: page.all("#classify .bars, #classify .problem"), "the new choice was not tried")


def test_a_junk_file_shows_the_problem_with_its_code(page: Page, junk: Path) -> None:
    page.open()
    page.choose("#classify", junk)
    notice = page.wait("#classify .problem")
    assert notice.get_attribute("role") == "alert"
    assert "junk.jpg" in page.wait("#classify .notice-detail").text
    assert page.wait("#classify .notice-small code").text in {"unsupported_media", "unreadable_media"}


def test_an_option_that_makes_no_sense_is_explained(page: Page) -> None:
    page.open()
    page.choose("#classify", EXAMPLES / "dog.wav")
    page.wait(".bars .bar")
    page.click("#classify .options summary")
    start, end = page.all("#classify .option-grid input")
    start.send_keys("3")
    end.send_keys("1")
    page.click("#classify .button.primary")
    assert page.wait("#classify .notice-small code").text == "invalid_parameter"


def test_labels_are_remembered_for_the_next_visit(page: Page) -> None:
    page.open()
    page.choose("#classify", EXAMPLES / "elephant.jpg")
    page.wait(".bars .bar")
    page.write("#classify textarea", "a cat, an elephant")
    page.click("#classify .button.primary")
    page.until(lambda: len(page.all(".bar-row")) == 2, "two labels were asked for")
    page.open()
    page.choose("#classify", EXAMPLES / "accordion.jpg")
    page.until(lambda: sorted(page.texts(".bar-label")) == ["a cat", "an elephant"], "the labels were forgotten")


def test_hostile_names_and_labels_stay_words(page: Page, tmp_path: Path) -> None:
    hostile = tmp_path / "<img src=x onerror=document.title='owned'>.jpg"
    hostile.write_bytes((EXAMPLES / "elephant.jpg").read_bytes())
    page.open()
    page.choose("#classify", hostile)
    page.wait(".bars .bar")
    page.write("#classify textarea", "<b id=owned>bold</b>")
    page.click("#classify .button.primary")
    page.until(lambda: page.texts(".bar-label") == ["<b id=owned>bold</b>"], "the label is not shown as it was written")
    assert page.texts("#classify .caption .file-name") == [hostile.name]
    assert page.all("#owned, .caption img") == []
    assert "owned" not in page.driver.title


def test_a_collection_is_filled_searched_and_its_hits_are_seen_and_heard(page: Page) -> None:
    page.open("collections")
    page.create_collection("seen-and-heard")
    page.add(EXAMPLES / "elephant.jpg", EXAMPLES / "dog.wav")
    page.search("a dog barking")

    assert sorted(page.texts(".card-title")) == ["dog.wav", "elephant.jpg"]
    scores = [float(text) for text in page.texts(".card-score")]
    assert scores == sorted(scores, reverse=True)
    page.until(lambda: page.visible_pictures() == ["elephant.jpg"], "the picture is not shown")
    length = "return document.querySelector('.card audio').duration"
    assert page.until(lambda: page.driver.execute_script(length), "the sound is not loaded") == pytest.approx(5.0, abs=0.1)
    assert "2 items" in page.wait(".collection-head .hint").text

    page.open("collections")  # A new visit: the previews were kept.
    page.until(lambda: page.visible_pictures() == ["elephant.jpg"], "the preview was not kept")


def test_a_search_keeps_to_one_modality_and_can_start_from_a_file(page: Page) -> None:
    page.open("collections")
    page.create_collection("one-modality")
    page.add(EXAMPLES / "elephant.jpg", EXAMPLES / "accordion.jpg", EXAMPLES / "rain.ogg")
    Select(page.wait(".search select[aria-label='Look among']")).select_by_value("image")
    page.all(".search .pill")[1].click()
    page.choose(".search", EXAMPLES / "accordion.jpg")
    page.wait(".search .frame img")
    page.click(".search .button.primary")
    page.wait(".card-score")
    assert page.texts(".card-title")[0] == "accordion.jpg"  # The very file: no other can be nearer.
    assert float(page.texts(".card-score")[0]) == pytest.approx(1.0, abs=0.001)
    assert len(page.all(".card")) == 2


def test_a_file_that_fails_does_not_keep_its_neighbours_out(page: Page, junk: Path) -> None:
    page.open("collections")
    page.create_collection("with-junk")
    page.add(junk, EXAMPLES / "elephant.jpg")
    assert "junk.jpg" in page.wait(".queue-row[data-state=failed] .outcome").text
    page.wait(".queue-row[data-state=added]")
    page.until(lambda: page.texts(".card-title") == ["elephant.jpg"], "the good file is not in the collection")


def test_what_was_added_elsewhere_is_listed_without_a_preview(page: Page) -> None:
    page.open("collections")
    page.create_collection("from-elsewhere")
    items = [
        {"id": "a", "modality": "text", "text": "a dog barking", "uri": "https://example.org/dog.txt", "metadata": {"note": "<i>loud</i>"}},
        {"id": "b", "modality": "text", "text": "rain", "uri": "javascript:alert(1)"},
    ]
    httpx.post(f"{page.address}v1/collections/from-elsewhere/items", json={"items": items}).raise_for_status()
    page.search("a dog barking")
    assert page.texts(".card .tile p") == ["A text: only its vector is stored."] * 2
    assert "<i>loud</i>" in page.texts(".facts dd")
    assert [link.get_attribute("href") for link in page.all(".card a")] == ["https://example.org/dog.txt"]


def test_deleting_a_collection_asks_first(page: Page) -> None:
    page.open("collections")
    page.create_collection("to-be-deleted")
    page.click(".collection-head .button")
    page.click("dialog .quiet")
    assert "to-be-deleted" in page.texts(".collection-head h2")
    page.click(".collection-head .button")
    page.click("dialog .danger")
    page.until(lambda: not any("to-be-deleted" in text for text in page.texts(".shelf li")), "the collection is still listed")


def test_a_name_that_is_not_allowed_is_refused_before_it_is_sent(page: Page) -> None:
    page.open("collections")
    page.wait(".create")
    page.write(".create input", "Not Allowed!")
    page.click(".create button")
    assert page.driver.execute_script("return document.querySelector('.create input').validity.patternMismatch")
    assert not any("Not Allowed" in text for text in page.texts(".shelf li"))


def test_a_service_that_comes_later_is_waited_for(page: Page) -> None:
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/readyz"]})
    try:
        page.driver.get("about:blank")
        page.driver.get(page.address)
        assert "cannot be reached" in page.wait("#state[data-state=away]").text
        assert "Waiting for the model" in page.wait("#classify .empty").text
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.wait("#state[data-state=ready]")
    page.wait("#classify .drop")
    page.driver.get_log("browser")  # The blocked requests were meant.


def test_a_service_with_keys_is_asked_again_with_the_key_that_was_given(page: Page) -> None:
    """Keys are played by a wrapper around `fetch`, so that this holds for any service that answers 401."""
    wrapper = """
        const real = window.fetch;
        window.fetch = (url, init) => {
          const refused = String(url).includes("/v1/") && init?.headers.get("Authorization") !== "Bearer right";
          return refused ? Promise.resolve(new Response("{}", { status: 401 })) : real(url, init);
        };
    """
    script = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": wrapper})
    try:
        page.driver.get("about:blank")
        page.driver.get(page.address)
        page.write("dialog input", "right")
        page.click("dialog .primary")
        page.wait("#classify .drop")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_phone_shows_everything_without_scrolling_sideways(page: Page) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for view in ("classify", "collections"):
            page.open(view)
            assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_api_documentation_is_one_step_away(page: Page) -> None:
    page.open()
    page.click(".docs")
    page.until(lambda: "/v1/classify" in page.driver.page_source, "the documentation lists no call")


def test_the_page_holds_no_outside_address_and_no_inline_code() -> None:
    files = [path for path in WEB.iterdir() if path.suffix in {".html", ".js", ".css", ".svg"}]
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://[a-z]|(src|href)=\"//", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path.name
    page = (WEB / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page)
