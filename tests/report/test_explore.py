"""The report's page in a real browser: hover, keyboard, filters, and the page without scripts."""

from __future__ import annotations

import csv
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


def test_every_model_and_every_evaluation_is_a_point(page):
    found = re.findall(r"json'>(.*?)</script>", page.read_text("utf-8"), re.DOTALL)
    charts = [json.loads(text) for text in found]
    for chart in charts:
        assert chart["x"]["log"] and len(chart["x"]["ticks"]) >= 3 and len(chart["y"]["ticks"]) >= 3
    scores = [chart["series"] for chart in charts if chart.get("frontier")]
    with (page.parent / "models.csv").open() as file:
        models = list(csv.DictReader(file))
    assert len(scores) == 2 and all(len(series) == len(models) for series in scores)
    by_place = {(s["points"][0][0], s["points"][0][1]): s for s in scores[0]}
    assert len(by_place) == len(models)
    for model in models:
        mean = 100 * float(model["accuracy_mean"])
        place = min(by_place, key=lambda p: abs(p[1] - mean))
        assert place == pytest.approx((float(model["megabytes_artifact_largest"]), mean), rel=1e-4)
        size, score, bytes_ = by_place[place]["points"][0][3].split("\n")
        assert size.startswith(f"{model['layers']}x{model['hidden']}, ")
        assert size.endswith("from scratch") == (model["init"] == "scratch")
        assert score.startswith(f"accuracy {mean:.1f} ± ") and score.endswith("4 seeds")
        assert "MB" in bytes_ and "non-zero" in bytes_
    curves = [chart["series"] for chart in charts if not chart.get("frontier")]
    assert [[len(one["points"]) > 20 for one in series] for series in curves] == [[True] * 3] * 2
    assert "perplexity" in curves[0][0]["points"][0][3]


@pytest.fixture
def browser(tmp_path) -> Iterator:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "headless no-sandbox disable-gpu no-first-run disable-background-networking"
    flags += " disable-component-update disable-sync window-size=1000,1400"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def _find(element, selector):
    return element.find_elements("css selector", selector)


@pytest.mark.browser
@installed
def test_points_show_their_numbers_and_filters_hide_them(page, browser):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    curves, scores = _find(browser, "figure")[0], _find(browser, "figure.wide")[0]
    (tip,) = _find(scores, ".tip")
    assert not tip.is_displayed() and not _find(scores, "img")[0].is_displayed()

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", scores)
    marks = _find(scores, ".mark")
    ActionChains(browser).move_to_element(marks[0]).perform()
    # The largest dense model stands alone, at the top right.
    alone = next(m for m in marks if m.get_attribute("aria-label").startswith("4x256, dense, acc"))
    ActionChains(browser).move_to_element(alone).perform()
    assert tip.text.replace("\n", ", ") == alone.get_attribute("aria-label")
    assert re.fullmatch(
        r"4x256, dense\naccuracy 7\d\.\d ± .*\n.* MB, 5.4 M non-zero of .*", tip.text
    )
    ActionChains(browser).move_to_element(_find(scores, "figcaption")[0]).perform()
    assert not tip.is_displayed()

    # The tab key reaches the chart once; the arrow keys move from point to point.
    assert [m.get_attribute("tabindex") for m in marks] == ["0"] + ["-1"] * (len(marks) - 1)
    browser.execute_script("arguments[0].focus()", marks[0])
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert tip.text.replace("\n", ", ") == marks[1].get_attribute("aria-label")
    ActionChains(browser).send_keys(Keys.END).perform()
    assert tip.text.replace("\n", ", ") == marks[-1].get_attribute("aria-label")

    def shown(figure):
        return [mark.get_attribute("aria-label") for mark in _find(figure, ".mark")]

    before, lines = shown(scores), len(_find(curves, ".line"))
    (size, *_), (recipe, *_) = (
        _find(browser, f"[data-filter='{name}'] input") for name in ("size", "recipe")
    )
    size.click()
    assert shown(scores) == [text for text in before if not text.startswith("2x64,")] != before
    assert len(_find(curves, ".line")) == lines - 1
    recipe.click()
    assert shown(scores) == [
        text for text in before if not text.startswith("2x64,") and ", dense" not in text
    ]
    assert len(_find(curves, ".line")) == lines - 1
    everything, nothing = _find(browser, "[data-filter='recipe'] button")
    nothing.click()
    assert shown(scores) == [] and shown(curves)
    everything.click()
    size.click()
    assert shown(scores) == before
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.mark.browser
@installed
@pytest.mark.parametrize("width", [1000, 380])
def test_page_fits_its_window(page, browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for chart in _find(browser, ".chart svg"):
        assert 280 < chart.size["height"] < 500


@pytest.mark.browser
@installed
def test_page_is_readable_without_scripts(page, browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(page.as_uri())
    assert all(image.is_displayed() for image in _find(browser, "figure img"))
    assert all(table.is_displayed() for table in _find(browser, "table"))
    assert not any(element.is_displayed() for element in _find(browser, ".filters, .chart, .tip"))
