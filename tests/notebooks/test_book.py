"""The built book: no warning, no file that is too large, nothing that a browser complains of or fetches elsewhere."""

import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

PAGES = (  # figures, widgets, formulas, quizzes, tables, references, docstrings
    "index",
    "01_introduction/1-01",
    "02_distillation/2-06",
    "03_fine_tuning/3-04",
    "04_deployment/quiz",
    "ledger",
    "references",
    "reference/training",
    "reference/operations",
)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Folder of the book, built as `make book` does, links checked."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("built")
    for command in (
        ["tools/pages.py", str(sources / "pages")],
        ["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", "book", str(sources / "pages"), str(built)],
    ):
        done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return built


def test_no_file_of_the_book_is_larger_than_five_megabytes(book):
    sizes = {file.relative_to(book).as_posix(): file.stat().st_size for file in book.rglob("*") if file.is_file()}
    assert len(sizes) > 100 and not {name: size for name, size in sizes.items() if size > 5e6}


@pytest.fixture(scope="module")
def page(book):
    """A page of a browser, for the book from disk."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    if not (book / "_static/vendor/embed.js").is_file():
        pytest.skip("`make book` has not fetched what the pages load")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def test_pages_open_without_a_network_and_without_complaints(book, page):
    noted = []
    page.on("console", lambda said: noted.append((page.url, said.text)) if said.type != "log" else None)
    page.on("pageerror", lambda error: noted.append((page.url, str(error))))
    page.on("request", lambda asked: noted.append((page.url, asked.url)) if asked.url.startswith("http") else None)
    page.on("requestfailed", lambda asked: noted.append((page.url, asked.url)))
    for name in PAGES:
        page.goto((book / f"{name}.html").as_uri(), wait_until="networkidle")
        assert page.locator("article h1").count() == 1
        assert page.evaluate("document.documentElement.scrollHeight") < 25_000, f"{name} is too long to be read"
    # the widgets' player checks saved states with a schema of its own, and says so
    assert [note for note in noted if "strictTypes" not in note[1]] == []


def test_a_cell_is_copied_as_it_is_read(book, page):
    page.goto((book / "01_introduction/1-01.html").as_uri(), wait_until="networkidle")
    page.evaluate("() => addEventListener('copy', () => { window.copied = document.activeElement.value; }, true)")
    cell = page.locator("div.cell_input").nth(1)
    cell.hover()
    cell.get_by_role("button").click()
    page.wait_for_function("() => window.copied")
    assert page.evaluate("window.copied").strip() == cell.locator("pre").inner_text().strip()


def test_the_search_finds_a_word_and_leads_to_it(book, page):
    page.goto((book / "search.html").as_uri() + "?q=temperature")
    page.locator("#search-results li a").first.wait_for()
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("Three things to learn from a teacher" in title for title in found), found
    page.locator("#search-results li a", has_text="Three things to learn").first.click()
    assert "temperature" in page.locator("article").inner_text()
