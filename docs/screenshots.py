"""The README's pictures of the Dagster UI, taken of the demo's data: `make demo screenshots`."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
HOME = ROOT / "data" / "demo" / "_dagster"
# `dagster-webserver` takes about ten seconds to load the definitions.
PATIENCE_SECONDS = 90
PAGES = {"graph": "/asset-groups", "checks": "/assets/sessions?view=checks"}


def main() -> None:
    """Start the web server on the demo's instance, take the pictures, stop it."""
    if not HOME.is_dir():
        sys.exit("run `make demo` first: the pictures show its data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(HOME),
        "SESSIONS_PIPELINE_DATA_ROOT": str(ROOT / "data" / "demo"),
        "LANGSMITH_API_KEY": "sandbox-key",
    }
    command = [str(Path(sys.executable).parent / "dagster-webserver"), "-w", "workspace.yaml", "-p", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"{address}/server_info")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
            )
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": 1440, "height": 860}, color_scheme=scheme)
                for name, path in PAGES.items():
                    _take(
                        page, f"{address}{path}", IMAGES / (f"{name}.png" if scheme == "light" else f"{name}-dark.png")
                    )
            browser.close()
    finally:
        server.terminate()
        server.wait()


def _take(page: Page, address: str, image: Path) -> None:
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3000)  # the graph is laid out after the data are there
    if "asset-groups" in address:
        page.keyboard.press("Alt+e")  # Dagster's key for opening all groups
        page.wait_for_timeout(2000)
    IMAGES.mkdir(exist_ok=True)
    page.screenshot(path=str(image))


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
