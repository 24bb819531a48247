"""The web page in front of a service that asks for keys: both ends are real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bindery.keys import Key, digest, new_key
from bindery.settings import Settings
from tests.e2e.browser import Page
from tests.e2e.test_web_page import EXAMPLES, WebDriver, driver
from tests.service.conftest import served, toy_bundle, toy_settings

__all__ = ["driver", "toy_bundle", "toy_settings"]

READER, WRITER = new_key(), new_key()
ROWS = (
    Key(name="reader", sha256=digest(READER), scopes=("read",)),
    Key(name="writer", sha256=digest(WRITER), scopes=("read", "write")),
)


@pytest.fixture(scope="module")
def keyed(toy_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(toy_settings.model_copy(update={"keys": ROWS, "data_dir": tmp_path_factory.mktemp("keyed")})) as address:
        yield f"{address}/"


@pytest.fixture
def page(driver: WebDriver, keyed: str) -> Page:
    page = Page(driver, keyed)
    driver.get("about:blank")
    driver.get(keyed)
    return page


def test_a_wrong_key_is_told_and_asked_for_again_and_the_right_one_opens_the_page(page: Page) -> None:
    assert "not accepted" not in page.wait("dialog").text
    page.write("dialog input", "bk_wrong")
    page.click("dialog .primary")
    page.until(lambda: "not accepted" in page.wait("dialog").text, "the second question does not say why")
    page.write("dialog input", READER)
    page.click("dialog .primary")
    page.choose("#classify", EXAMPLES / "elephant.jpg")
    page.until(lambda: page.all("#classify .bar, #classify [role=meter], #classify meter, #classify li"), "no labels are shown")
    assert page.all("dialog") == []


def test_who_declines_is_told_that_a_key_is_needed(page: Page) -> None:
    page.click("dialog .quiet")
    page.until(lambda: "A key is needed" in page.wait("#classify").text, "nothing says what is missing")


def test_what_the_key_does_not_allow_is_told(page: Page) -> None:
    page.write("dialog input", READER)
    page.click("dialog .primary")
    page.wait("#classify .drop")
    answer = page.driver.execute_async_script(
        """
        const done = arguments[0];
        import("/api.js").then(({ api }) => api.createCollection("zoo")).then(() => done("made"), (problem) => done(problem.code));
        """
    )
    assert answer == "forbidden"
