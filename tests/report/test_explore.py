"""The report's page in a real browser: hover, filters, and the page without scripts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlc_jax.commands import report
from tlc_jax.config import default_config, resolve

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
installed = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium is not installed")


@pytest.fixture
def page(study_maker, tmp_path) -> Path:
    study_maker(tmp_path / "study")
    report.run(resolve(default_config()), tmp_path / "study", {})
    return tmp_path / "study" / "report" / "index.html"


def explore_data(page: Path) -> dict:
    found = re.search(r'id="explore-data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    return json.loads(found[1])


def test_every_model_and_every_evaluation_is_a_point(page):
    data = explore_data(page)
    models = [p for c in data["charts"] if not c["line"] for s in c["series"] for p in s["points"]]
    rows = (page.parent / "models.csv").read_text().splitlines()
    assert len(models) == len(rows) - 1
    assert all(re.search(r"\d+x\d+.*: .*, [\d.]+ MB, \d+ seeds?$", p["text"]) for p in models)
    curves = [c for c in data["charts"] if c["line"]]
    assert curves and all(len(s["points"]) > 1 for c in curves for s in c["series"])


@pytest.fixture
def browser(tmp_path) -> Iterator:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "headless no-sandbox disable-gpu no-first-run disable-background-networking"
    flags += " disable-component-update disable-sync window-size=1000,2000"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.browser
@installed
def test_points_tell_what_they_are_and_filters_hide_them(page, browser):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser.get(page.as_uri())
    points = browser.find_elements(By.CSS_SELECTOR, "#explore .charts > div:first-child .point")
    told = browser.find_element(By.CSS_SELECTOR, "#explore .charts > div:first-child .told")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[0])
    ActionChains(browser).move_to_element(points[0]).perform()
    assert told.text == points[0].get_attribute("aria-label")
    browser.execute_script("arguments[0].focus()", points[-1])
    assert told.text == points[-1].get_attribute("aria-label")

    def visible() -> int:
        return sum(point.is_displayed() for point in points)

    before = visible()
    box = browser.find_element(By.CSS_SELECTOR, "#explore input[name='size']")
    size = box.get_attribute("value")
    box.click()
    hidden = sum(p.get_attribute("aria-label").startswith(f"{size},") for p in points)
    hidden += sum(p.get_attribute("aria-label").startswith(f"{size}, from scratch") for p in points)
    assert 0 < visible() < before == len(points)
    browser.find_element(By.CSS_SELECTOR, "#explore input[name='recipe']").click()
    assert visible() < before - 1 and hidden
    box.click()
    browser.find_element(By.CSS_SELECTOR, "#explore input[name='recipe']").click()
    assert visible() == before
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert errors == []


@pytest.mark.browser
@installed
def test_page_is_readable_without_scripts(page, browser):
    from selenium.webdriver.common.by import By

    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(page.as_uri())
    assert not browser.find_element(By.ID, "explore").is_displayed()
    assert browser.find_element(By.CSS_SELECTOR, "table").is_displayed()
    assert browser.find_element(By.CSS_SELECTOR, "figure img").is_displayed()
