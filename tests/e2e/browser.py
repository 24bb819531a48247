"""A browser window on the web page: the few gestures that a person makes, and how to wait for what they lead to."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

# Long enough for a loaded machine; a test that passes does not wait.
PATIENCE_S = 60

T = TypeVar("T")


class Page:
    def __init__(self, driver: WebDriver, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, view: str = "classify") -> None:
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}#{view}")
        self.wait(f"#{view} h1")

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        return [element.text for element in self.all(css)]

    def until(self, what: Callable[[], T | None], words: str) -> T:
        waiting = WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException])
        return cast(T, waiting.until(lambda _: what(), words))

    def wait(self, css: str) -> WebElement:
        return self.until(lambda: next((one for one in self.all(css) if one.is_displayed()), None), f"nothing is shown at {css}")

    def click(self, css: str) -> None:
        self.wait(css).click()

    def choose(self, within: str, *files: Path) -> None:
        self.until(lambda: self.all(f"{within} input[type=file]"), f"no file field in {within}")[0].send_keys("\n".join(map(str, files)))

    def drop(self, css: str, file: Path) -> None:
        """A drop as the browser reports it: selenium cannot carry a file from outside the window."""
        self.wait(css)
        self.driver.execute_script(
            """
            const [css, name, type, data] = arguments;
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name, { type }));
            const event = (kind) => new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true });
            const target = document.querySelector(css);
            for (const kind of ["dragenter", "dragover", "drop"]) target.dispatchEvent(event(kind));
            """,
            css,
            file.name,
            "image/jpeg",
            base64.b64encode(file.read_bytes()).decode(),
        )

    def write(self, css: str, text: str) -> None:
        field = self.wait(css)
        field.clear()
        field.send_keys(text)

    def create_collection(self, name: str) -> None:
        self.wait(".create")
        self.until(lambda: self.all(".opened .empty, .collection"), "the collections are not loaded")
        self.write(".create input", name)
        self.click(".create button")
        self.until(lambda: name in self.texts(".collection-head h2"), f"{name} is not opened")

    def add(self, *files: Path) -> None:
        self.wait(".add[open] .drop")
        self.choose(".adding", *files)
        self.click(".adding .button.primary")
        self.until(lambda: "added" in "".join(self.texts(".adding .hint[role=status]")), "the batch does not end")

    def search(self, words: str) -> None:
        self.write(".search input[type=search]", words)
        self.click(".search .button.primary")
        self.wait(".card-score")

    def visible_pictures(self) -> list[str]:
        """Names of the pictures in cards that the browser has really decoded."""
        script = (
            "return [...document.querySelectorAll('.card img')].filter((one) => one.complete && one.naturalWidth > 0).map((one) => one.alt)"
        )
        return list(self.driver.execute_script(script))
