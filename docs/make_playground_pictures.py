"""Take the playground's pictures from a running server, with the system's chromium: one light, one dark.

    python docs/make_playground_pictures.py --url http://127.0.0.1:8000

Both show the page's first answer, beside the one without healing, with what was erased struck through.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image  # comes with matplotlib
from playwright.sync_api import Browser, sync_playwright

#: Pixels.
SIZE = {"width": 1120, "height": 700}
#: A third of the size, and text looks the same.
COLOURS = 64


def picture(browser: Browser, url: str, scheme: str, out: Path) -> int:
    """Draw the page's first answer, picture it, and tell how many draws were erased."""
    context = browser.new_context(viewport=SIZE, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{url}/playground")
    page.locator("[name=model] option").first.wait_for(state="attached")
    page.get_by_label("Beside it").check()
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("status").filter(has_text="Done").wait_for(timeout=120_000)
    page.get_by_label("Show what was erased").check()
    erased = page.locator(".answer del").count()
    page.evaluate("document.activeElement.blur()")
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    shot.quantize(COLOURS).save(out, optimize=True)
    context.close()
    return erased


def main() -> int:
    flags = argparse.ArgumentParser(description="Take the playground's pictures.")
    flags.add_argument("--url", default="http://127.0.0.1:8000")
    flags.add_argument("--out", type=Path, default=Path("docs"))
    args = flags.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium on PATH: install it, e.g. apt-get install chromium")
    healed = True
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        for scheme in ("light", "dark"):
            out = args.out / f"playground-{scheme}.png"
            erased = picture(browser, args.url, scheme, out)
            sys.stderr.write(f"{out}: {erased} draws erased, {out.stat().st_size // 1000} kB\n")
            healed = healed and erased > 0
        browser.close()
    return 0 if healed else 1


if __name__ == "__main__":
    sys.exit(main())
