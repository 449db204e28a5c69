"""A real JupyterLab from the lock: the chapter opens, runs to its end, and its sliders compute."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from conftest import ROOT

CHAPTER = "08_01_weight_decay.ipynb"


@pytest.fixture
def lab(tmp_path, request) -> Iterator[str]:
    """The address of a JupyterLab in a copy of the book, at the root or in its folder."""
    shutil.copytree(ROOT / "book", tmp_path / "book")
    folder = tmp_path / request.param
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    command += ["--allow-root", "--IdentityProvider.token=", "--ServerApp.password="]
    log = tmp_path / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, text=True
        )
    deadline, address = time.time() + 60, None
    while address is None and time.time() < deadline:
        time.sleep(0.3)
        address = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
    assert address, log.read_text()
    yield address[0]
    server.send_signal(signal.SIGTERM)
    server.wait(timeout=30)


def open_chapter(browser, address: str, path: str):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    # A workspace of its own: the default one would bring back the chapters opened before.
    page.goto(f"{address}/lab/workspaces/{Path(path).stem}/tree/{path}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_selector("[data-status='idle']", timeout=60_000)
    return page


@pytest.mark.parametrize("lab", ["."], indirect=True)
def test_chapter_runs_and_its_sliders_compute(lab, browser, tmp_path):
    page = open_chapter(browser, lab, f"book/{CHAPTER}")
    title = page.locator(".jp-Notebook h1").first
    assert "8.1 Weight decay" in title.inner_text()
    goals = page.locator(".jp-Notebook", has_text="After this chapter you can")
    assert goals.count() == 1
    title.click()  # the menu acts on the tab that has the focus
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    # It has finished when the last code cell, saved to disk, has its outputs and number.
    stored = tmp_path / "book" / CHAPTER
    cells = [cell for cell in nbformat.read(stored, 4).cells if cell.cell_type == "code"]
    before = stored.stat().st_mtime
    page.wait_for_selector("[data-status='busy']", timeout=30_000)
    page.wait_for_selector("[data-status='idle']", timeout=300_000)
    page.keyboard.press("Control+s")
    deadline = time.time() + 30
    while stored.stat().st_mtime == before and time.time() < deadline:
        time.sleep(0.3)
    ran = [cell for cell in nbformat.read(stored, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(cells) + 1))
    for cell in ran:
        assert all(output.output_type != "error" for output in cell.outputs), cell.source

    # The slider is a live widget: moving it calls draw in the kernel.
    box = page.locator(".widget-vbox:has(.noUi-handle)").first
    page.locator(".jp-Notebook h1").first.hover()
    for _ in range(80):
        if box.count():
            break
        page.mouse.wheel(0, 500)
        page.wait_for_timeout(150)
    page.screenshot(path=tmp_path / "scrolled.png")
    slider = box.locator(".noUi-handle")
    slider.scroll_into_view_if_needed()
    picture = box.locator("img")
    shown, said = picture.get_attribute("src"), box.inner_text()
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("([img, old]) => img.src !== old", arg=[picture.element_handle(), shown])
    assert box.inner_text() != said
    page.screenshot(path=tmp_path / "lab.png")


@pytest.mark.parametrize("lab", ["book"], indirect=True)
def test_every_chapter_opens_from_its_own_folder(lab, browser, tmp_path):
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        page = open_chapter(browser, lab, path.name)
        title = nbformat.read(path, 4).cells[0].source.split("# ")[1].splitlines()[0]
        assert title in page.locator(".jp-Notebook h1").first.inner_text()
        page.screenshot(path=tmp_path / f"{path.stem}.png")
        # Without running anything, the mathematics of the text is there.
        formula = ".jp-Notebook :is(.katex, mjx-container, .MathJax)"
        page.wait_for_selector(formula, state="attached")
        assert Path(tmp_path / "book" / path.name).read_bytes() == path.read_bytes()
        page.close()
