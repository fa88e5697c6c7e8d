"""`report.html` in a real browser, where there is one: its script filters and opens cells, and nothing is too wide."""

import sys

import pytest

from benchrunner.core.paths import CHECKOUT
from benchrunner.report import html
from benchrunner.report.content import make_tables
from samples import make_cell, make_every_status

sys.path.insert(0, str(CHECKOUT / "benchmarks"))

from browser import find_browser, open_browser

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium here")

SHOWN = "[...document.querySelectorAll('#cells tbody tr')].map((row) => row.cells[0].textContent)"
DIALOG = "document.getElementById('cell')"
OPENED = (
    "document.querySelector('#cells tbody tr').click();"
    "new Promise((done) => { let left = 2000; const wait = () => "
    f"{DIALOG}.open || !left-- ? done() : setTimeout(wait, 5); wait(); }})"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with every status, opened."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(html.to_html(make_tables("t", make_every_status(), ["a note"], [])), encoding="utf-8")
    with open_browser() as browser:
        browser.show(1200, 900)
        browser.open(file)
        yield browser


def test_the_script_runs_and_filters(page):
    page.evaluate("document.querySelector('.chip[data-status=oom]').click()")
    assert page.evaluate(SHOWN) == ["OOM oom"] * 2
    page.evaluate("[...document.querySelectorAll('#tools button')].at(-1).click()")
    page.evaluate("const box = document.getElementById('search'); box.value = 'nf4 budget never'")
    page.evaluate("document.getElementById('search').dispatchEvent(new Event('input'))")
    assert page.evaluate(SHOWN) == []
    page.evaluate("[...document.querySelectorAll('#tools button')].at(-1).click()")
    assert len(page.evaluate(SHOWN)) == len(make_every_status())
    assert page.errors() == []


def test_a_limit_of_memory_holds_for_cells_and_heat_map(page):
    def limit(value):
        page.evaluate(f"document.getElementById('most').value = '{value}'")
        page.evaluate("document.getElementById('most').dispatchEvent(new Event('input'))")
        return page.evaluate(SHOWN), page.evaluate("document.querySelectorAll('#heat td.ok').length")

    (few, squares), (none, no_squares), (every, all_squares) = limit("0.7"), limit("0.1"), limit("")
    assert few and set(few) == {"✓ ok"} and squares > 0
    assert (none, no_squares) == ([], 0)
    assert len(every) == len(make_every_status()) and all_squares == squares
    assert page.errors() == []


def test_a_cell_opens_with_links_to_its_files(page):
    page.evaluate(OPENED)
    slug = make_cell().slug
    links = page.evaluate(f"[...{DIALOG}.querySelectorAll('a')].map((one) => one.getAttribute('href'))")
    assert links == [f"cells/{slug}/record.json", f"cells/{slug}/attempt-1/"]
    assert "took 12.5 s" in page.evaluate(f"{DIALOG}.textContent")
    page.evaluate(f"{DIALOG}.close()")


@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_is_wider_than_the_window(page, width):
    page.show(width, 900)
    assert page.evaluate("document.documentElement.scrollWidth") == width
