"""The playground in a real browser, against a real server: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.serving import MODEL, Server

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium"),
]

PROMPT = "Write a short story about a lighthouse keeper."
#: Every segment is erased once while the budget lasts: what erases is given, what is drawn is the model's.
NUMBERS = {"k": "-10", "segmentTokens": "8", "maxErasures": "1", "temperature": "0.9", "maxTokens": "40", "seed": "7"}
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0.9,
    "max_tokens": 40,
    "seed": 7,
}
HEALING = {"mode": "on", "threshold": {"k": -10}, "segment": {"tokens": 8}, "max_erasures": 1}
#: Float32 and a seed: two runs of a request draw the same tokens.
FLAGS = ("--healing", "on", "--dtype", "float32")
KEY = "sesame-opens"

#: Milliseconds: an answer here takes seconds, more of them on a busy machine.
PATIENCE = 60_000

Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api.expect.set_options(timeout=PATIENCE)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """A function from a server to its playground in a fresh browser profile; what went wrong there fails the test."""
    wrong: list[str] = []
    contexts = []

    def open_page(server: Server, refused: int = 0, **settings: Any) -> Any:
        """`refused`: how many refusals the test means to get; the browser reports each as an error."""
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        errors: list[str] = []

        def heard(message: Any) -> None:
            if message.type in ("error", "warning"):
                errors.append(message.text)
                if len(errors) > refused or "the server responded with a status of 4" not in message.text:
                    wrong.append(message.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: request.url.startswith((server.url, "blob:")) or wrong.append(request.url))
        page.goto(f"{server.url}/playground")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def healing(server: Callable[..., Server]) -> Server:
    return server(*FLAGS)


def fill(page: Any, **changes: str) -> None:
    page.get_by_label("Prompt").fill(PROMPT)
    for name, value in {**NUMBERS, **changes}.items():
        page.locator(f"[name={name}]").fill(value)


def drawn(page: Any, **changes: str) -> str:
    """The answer's final text."""
    fill(page, **changes)
    page.get_by_role("button", name="Generate").click()
    return final(page)


def final(page: Any) -> str:
    sync_api.expect(page.get_by_role("status")).to_contain_text("Done:")
    return "".join(page.locator("[data-committed] .final").all_text_contents())


def answered(server: Server, healing: object, **headers: str) -> dict[str, Any]:
    url = f"{server.url}/v1/chat/completions"
    answer = httpx.post(url, json={**CHAT, "healing": healing}, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def tab_to(page: Any, name: str) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == name:
            return
    raise AssertionError(f"no way to {name} with the Tab key")


def test_with_the_keyboard_alone_an_answer_is_seen_to_heal(visit: Visit, healing: Server) -> None:
    page = visit(healing)
    sync_api.expect(page.locator("[name=model]")).to_have_value(MODEL)
    tab_to(page, "prompt")
    page.keyboard.press("Control+A")
    page.keyboard.type(PROMPT)
    for name, value in NUMBERS.items():
        page.locator("[name=prompt]").focus()
        tab_to(page, name)
        page.keyboard.press("Control+A")
        page.keyboard.type(value)
    page.locator("[name=prompt]").focus()
    page.keyboard.press("Control+Enter")
    page.locator("del.erasing").first.wait_for()  # struck through while its replacement is drawn
    sync_api.expect(page.get_by_role("status")).to_contain_text("tokens erased, uncertainty")
    whole = answered(healing, HEALING)
    assert final(page) == whole["choices"][0]["message"]["content"]
    assert page.locator("button.mark").count() == whole["healing"]["erasures"] > 1
    assert page.locator("del").count() == 0  # what was erased is out of the text, and behind its mark
    tab_to(page, "erased")
    page.keyboard.press("Space")
    assert page.locator("del").count() == whole["healing"]["erasures"]


def test_beside_it_the_same_with_healing_off(visit: Visit, healing: Server) -> None:
    page = visit(healing)
    page.get_by_label("Beside it, the same with healing off").check()
    assert drawn(page) == answered(healing, HEALING)["choices"][0]["message"]["content"]
    plain = answered(healing, "off")["choices"][0]["message"]["content"]
    assert page.locator("[data-plain]").text_content() == plain


def test_the_chart_tells_every_draw(visit: Visit, healing: Server) -> None:
    page = visit(healing)
    drawn(page)
    page.get_by_text("As a table").click()
    rows = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    records = answered(healing, HEALING)["healing"]["records"]
    draws = [draw for record in records for draw in [*record["erased"], record]]
    assert [(row[2], row[3]) for row in rows] == [
        (f"{draw['uncertainty']['u']:.2f}", f"{draw['threshold']:.2f}") for draw in draws
    ]
    assert page.locator(".plot canvas").count() == 1


def test_modes_without_erasures(visit: Visit, healing: Server) -> None:
    page = visit(healing)
    plain = answered(healing, "off")["choices"][0]["message"]["content"]
    page.locator("[name=mode]").select_option("shadow")
    assert drawn(page) == plain
    sync_api.expect(page.get_by_role("status")).to_contain_text("would have been erased")
    page.locator("[name=mode]").select_option("off")
    page.get_by_role("button", name="Generate").click()
    sync_api.expect(page.get_by_role("status")).to_have_text("Done")
    assert page.locator("[data-plain]").text_content() == plain


def test_a_replay_file_shows_the_run_again(visit: Visit, healing: Server, tmp_path: Path) -> None:
    page = visit(healing)
    page.get_by_label("Beside it").check()
    text = drawn(page)
    file = tmp_path / "replay.json"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save replay").click()
    download.value.save_as(file)
    assert {"settings", "events", "plain"} <= json.loads(file.read_text("utf-8")).keys()
    again = visit(healing, reduced_motion="reduce")
    again.get_by_label("Replay file").set_input_files(file)
    assert final(again) == text
    assert again.get_by_label("Prompt").input_value() == PROMPT
    assert again.locator("[data-plain]").text_content() == page.locator("[data-plain]").text_content()
    dropped = visit(healing)
    transfer = dropped.evaluate_handle(
        "text => { const t = new DataTransfer(); t.items.add(new File([text], 'replay.json')); return t }",
        file.read_text("utf-8"),
    )
    dropped.dispatch_event("body", "drop", {"dataTransfer": transfer})
    dropped.locator("del.erasing").first.wait_for()  # at its own pace
    assert final(dropped) == text


def test_what_is_no_replay_file_is_refused(visit: Visit, healing: Server, tmp_path: Path) -> None:
    file = tmp_path / "replay.json"
    file.write_text("{}")
    page = visit(healing)
    page.get_by_label("Replay file").set_input_files(file)
    sync_api.expect(page.get_by_role("status")).to_contain_text("This is no replay file")


def test_escape_stops_and_leaves_what_was_final(visit: Visit, healing: Server) -> None:
    page = visit(healing)
    fill(page, maxTokens="1500")
    page.get_by_role("button", name="Generate").click()
    page.locator("[data-committed] .final").first.wait_for()
    page.keyboard.press("Escape")
    sync_api.expect(page.get_by_role("status")).to_contain_text("Stopped")
    assert page.locator(".draft, del").count() == 0


def test_a_wrong_setting_is_told_in_the_servers_words(visit: Visit, healing: Server) -> None:
    page = visit(healing, refused=1)
    fill(page, maxTokens="99999")
    page.get_by_role("button", name="Generate").click()
    sync_api.expect(page.get_by_role("status")).to_contain_text("max_tokens")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_in_dark(visit: Visit, healing: Server, scheme: str) -> None:
    page = visit(healing, color_scheme=scheme)
    style = page.evaluate(
        "names => { const s = getComputedStyle(document.documentElement);"
        " return Object.fromEntries(names.map(n => [n, s.getPropertyValue('--' + n)])) }",
        ["ink", "faint", "kept", "erased", "paper", "panel", "accent", "on-accent"],
    )
    assert (luminance(style["paper"]) < 0.1) == (scheme == "dark")
    for text in ("ink", "faint", "kept", "erased"):
        assert contrast(style[text], style["panel"]) > 4.5, text
    assert contrast(style["accent"], style["on-accent"]) > 4.5


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it, of ``#rrggbb`` or ``#rgb``."""
    if len(colour) == 4:
        colour = "#" + "".join(2 * digit for digit in colour[1:])
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_every_control_has_a_name(visit: Visit, healing: Server) -> None:
    page = visit(healing)
    drawn(page)
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('input, select, textarea, button')].filter("
        "e => !e.labels?.length && !e.ariaLabel && !e.textContent.trim()).map(e => e.outerHTML)"
    )
    assert nameless == []
    assert page.locator("[aria-live=polite]").count() == page.get_by_role("status").count() == 1


def test_with_an_api_key(visit: Visit, server: Callable[..., Server], tmp_path: Path) -> None:
    guarded = server(*FLAGS, "--api-key", KEY)
    page = visit(guarded, refused=1)
    sync_api.expect(page.get_by_role("status")).to_contain_text("wants an API key")
    page.get_by_label(re.compile("API key")).fill(KEY)
    page.get_by_label("Prompt").focus()
    sync_api.expect(page.locator("[name=model]")).to_have_value(MODEL)
    whole = answered(guarded, HEALING, authorization=f"Bearer {KEY}")
    assert drawn(page) == whole["choices"][0]["message"]["content"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save replay").click()
    download.value.save_as(tmp_path / "replay.json")
    assert KEY not in (tmp_path / "replay.json").read_text("utf-8")
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.reload()
    sync_api.expect(page.get_by_label(re.compile("API key"))).to_have_value(KEY)
    other = page.context.browser.new_context().new_page()
    other.goto(f"{guarded.url}/playground")
    sync_api.expect(other.get_by_label(re.compile("API key"))).to_have_value("")
    other.context.close()
