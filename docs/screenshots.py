"""Take the README's screenshots, of the demo's data: `make demo screenshots`."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import date
from pathlib import Path

from playwright.sync_api import FloatRect, Page, sync_playwright

from sessions_pipeline.cli.runs import demo_variables
from sessions_pipeline.settings import program_variables

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
DATA = ROOT / "data" / "demo"
# `dagster-webserver` takes about ten seconds to load the definitions.
PATIENCE_SECONDS = 90
# After the network is idle, Dagster still lays out the graph and animates it.
SETTLING_MS = 2500
ASSET = "daily_cost_by_reference_dataset"
# The graph's part of the 1600 by 900 window. Cropping keeps its small names readable and leaves out Dagster's menus.
GRAPH: FloatRect = {"x": 120, "y": 300, "width": 1260, "height": 490}


def main() -> None:
    """Start the web server on the demo's instance, take the screenshots, stop the server."""
    if not (DATA / "_dagster").is_dir():
        sys.exit("run `make demo` first: the screenshots show its data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    first = date.fromisoformat(min(DATA.glob("raw_sessions/start_date=2*")).name.partition("=")[2])
    environment = program_variables(demo_variables(address, first), alone=True)
    command = [str(Path(sys.executable).parent / "dagster-webserver"), "-w", "workspace.yaml", "-p", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"{address}/server_info")
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            page = browser.new_page(
                viewport={"width": 1600, "height": 900}, color_scheme="light", device_scale_factor=1.5
            )
            # Only the main table's neighbours: the graph of all tables is too wide to be readable.
            _open(page, f"{address}/assets/{ASSET}?view=lineage&lineageScope=neighbors&lineageDepth=2")
            page.get_by_text("Hide navigation").click()
            _take(page, "graph", clip=GRAPH)
            page.set_viewport_size({"width": 1600, "height": 1130})
            _open(page, f"{address}/assets/{ASSET}?view=overview")
            page.get_by_text("Columns", exact=True).first.click()  # collapses the list of columns
            page.get_by_text("Plots", exact=True).click()
            _take(page, "asset")
            page.set_viewport_size({"width": 1120, "height": 1457})
            _open(page, (DATA / "reports" / "cost.html").as_uri())
            _take(page, "report")
            browser.close()
    finally:
        server.terminate()
        server.wait()


def _open(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(SETTLING_MS)


def _take(page: Page, name: str, clip: FloatRect | None = None) -> None:
    page.wait_for_timeout(SETTLING_MS)
    IMAGES.mkdir(exist_ok=True)
    page.screenshot(path=str(IMAGES / f"{name}.png"), clip=clip)


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    sys.exit(f"the web server did not start within {PATIENCE_SECONDS} s")


if __name__ == "__main__":
    main()
