"""The report in a real browser: numbers, tables, accessibility, phones, printing, and no use of the network."""

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from sessions_pipeline.outputs import formatting
from sessions_pipeline.outputs.report.data import ReportData
from sessions_pipeline.outputs.spending import JudgeReadings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET
from sessions_pipeline_tests.builders import dataset
from sessions_pipeline_tests.builders_report import (
    FIRST,
    HOSTILE_NAMES,
    LAST,
    SCRIPT,
    daily,
    html_of,
    judge_reading,
    made_up,
    nothing_read,
    report_of,
    summary,
)

pytestmark = pytest.mark.browser

# For a browser in a container that opens no connections of its own.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTHS = {"desk": 1280, "phone": 390}
DATA = made_up()
ROWS = DATA.rows.to_pylist()

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("needs Chromium: apt-get install chromium")
    # In CI a missing browser is a failure, which Playwright reports.
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium or "chromium", args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a report from a file. Fails if the page requests anything from a network or writes to the console."""
    asked: list[str] = []
    said: list[str] = []
    contexts = []

    def show(data: ReportData = DATA, **options: Any) -> Page:
        file = tmp_path / "report.html"
        file.write_text(html_of(data), "utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.goto(file.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert said == []


def texts(found: Locator) -> list[str]:
    return [text.strip() for text in found.all_inner_texts()]


def values(page: Page, selector: str) -> list[str | None]:
    return [one.get_attribute("value") for one in page.locator(f"{selector} data").all()]


def column(page: Page, number: int) -> list[str]:
    return texts(page.locator(f"#rows tbody tr > :nth-child({number})"))


def show_all(page: Page) -> None:
    while page.locator("#more").is_visible():
        page.locator("#more").click()


def test_every_row_of_the_table_is_a_row_of_the_parquet(show: Open) -> None:
    page = show()
    show_all(page)
    found = [
        (
            row.locator("th").inner_text().removesuffix(" not over"),
            row.locator("bdi").get_attribute("title"),
            *(cell.inner_text() for cell in row.locator("td.n").all()),
        )
        for row in page.locator("#rows tbody tr").all()
    ]
    measures = ("session_count", "unpriced_session_count", "run_count", "total_tokens")
    assert sorted(found) == sorted(
        (
            row["start_date"].isoformat(),
            row["reference_dataset_id"],
            formatting.money(row["total_cost"]),
            *(formatting.count(row[name]) for name in measures),
        )
        for row in ROWS
    )


def test_every_amount_in_the_table_equals_the_parquet_exactly(show: Open) -> None:
    page = show()
    show_all(page)
    exact = page.locator("#rows tbody td:nth-child(3) data").evaluate_all("all => all.map(one => one.value)")
    assert sorted(map(Decimal, exact)) == sorted(row["total_cost"] for row in ROWS if row["total_cost"] is not None)


def test_the_headline_is_the_exact_total_of_the_parquet(show: Open) -> None:
    page = show()
    total = sum(row["total_cost"] for row in ROWS if row["total_cost"] is not None)
    (shown,) = values(page, ".total")
    assert shown is not None
    assert Decimal(shown) == total
    assert page.locator(".total data").inner_text() == formatting.money(total)
    assert values(page, "#rows tfoot td:nth-child(3)") == [shown]


def test_the_sums_by_dataset_and_by_day_equal_the_parquet(show: Open) -> None:
    page = show()
    page.get_by_text("The chart's numbers").click()
    for one in DATA.datasets:
        exact = values(page, f"tr[data-dataset='{one.key}'] td:nth-child(2)")
        assert exact == ([] if one.now.cost is None else [formatting.exact(one.now.cost)])
    by_day = values(page, ".buckets td:nth-child(2)")
    assert by_day == [formatting.exact(one.totals.cost) for one in DATA.buckets if one.totals.cost is not None]
    assert "not known" in texts(page.locator(".buckets td:nth-child(2)"))


@pytest.mark.parametrize(("name", "number"), [("Day", 1), ("Dataset", 2), ("Cost", 3), ("Traces", 6), ("Tokens", 7)])
def test_a_click_sorts_and_a_second_click_reverses_the_order(show: Open, name: str, number: int) -> None:
    page = show()
    page.get_by_label("Search by").fill("")
    show_all(page)
    button = page.locator("#rows thead").get_by_role("button", name=name, exact=True)

    def known() -> list[Any]:
        show_all(page)
        found = column(page, number)
        blanks = [text == "unknown" for text in found]
        assert blanks == sorted(blanks), "what is unknown comes last"
        if number == 1:
            return [text.removesuffix(" not over") for text in found]
        if number == 2:
            return [text.lower() for text in found]
        exact = page.locator(f"#rows tbody td:nth-child({number}) data").evaluate_all(
            "all => all.map(one => one.value)"
        )
        return [Decimal(text) for text in exact]

    button.click()
    first = known()
    direction = page.locator("#rows thead th[aria-sort]").get_attribute("aria-sort")
    assert page.locator("#rows thead th[aria-sort]").inner_text().startswith(name)
    assert first == sorted(first, reverse=direction == "descending")
    button.click()
    assert known() == sorted(first, reverse=direction == "ascending")
    assert page.locator("#rows thead th[aria-sort]").get_attribute("aria-sort") != direction


def test_a_search_leaves_the_matching_rows_and_their_exact_sum(show: Open) -> None:
    page = show()
    page.get_by_label("Search by dataset, id or day").fill(f"2025-03-1 {dataset(2)}")
    matching = [
        row
        for row in ROWS
        if "2025-03-1" in row["start_date"].isoformat() and row["reference_dataset_id"] == dataset(2)
    ]
    assert len(column(page, 1)) == len(matching) > 0
    assert page.get_by_role("status").inner_text() == (f"{len(matching)} of {len(matching)} rows found, of {len(ROWS)}")
    (total,) = values(page, "#rows tfoot td:nth-child(3)")
    assert Decimal(total or "") == sum(row["total_cost"] for row in matching if row["total_cost"] is not None)
    before = page.locator("#rows .order").inner_text()
    page.locator("#rows thead").get_by_role("button", name="Cost", exact=True).click()
    assert (before, page.locator("#rows .order").inner_text()) == (", by day, latest first", ", by cost, largest first")
    page.get_by_label("Search by").fill("no such dataset")
    assert column(page, 1) == []
    assert set(column_of_sums(page)) == {"none"}
    page.get_by_label("Search by").fill("")
    page.get_by_label("Only with unknown costs").check()
    assert page.get_by_role("status").inner_text().endswith(f"found, of {len(ROWS)}")
    show_all(page)
    assert len(column(page, 1)) == sum(row["unpriced_session_count"] > 0 for row in ROWS)


def column_of_sums(page: Page) -> list[str]:
    return texts(page.locator("#rows tfoot td.n"))


def test_the_csv_holds_the_parquets_rows_to_the_last_digit(show: Open) -> None:
    page = show()
    page.get_by_label("Search by").fill("2025-03-30")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV of all rows").click()
    assert download.value.suggested_filename == "daily_cost_by_reference_dataset_2025-03-01_2025-03-30.csv"
    content = Path(download.value.path()).read_bytes()
    assert content.startswith("\ufeffstart_date,".encode()), "Excel reads UTF-8 only after a byte order mark"
    with Path(download.value.path()).open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file))
    assert [*found[0]] == ["start_date", *DAILY_COST_BY_REFERENCE_DATASET.schema.names, "dataset_name"]

    def row_of(line: dict[str, str]) -> dict[str, Any]:
        return {name: _typed(name, text) for name, text in line.items() if name != "dataset_name"}

    def order(row: dict[str, Any]) -> tuple[str, str]:
        return str(row["start_date"]), row["reference_dataset_id"]

    expected = [{**row, "start_date": row["start_date"].isoformat()} for row in ROWS]
    assert sorted(map(row_of, found), key=order) == sorted(expected, key=order)
    names = {line["reference_dataset_id"]: line["dataset_name"] for line in found}
    assert names[dataset(1)] == SCRIPT
    assert names[dataset(4)] == "'=HYPERLINK(1)"


def _typed(name: str, text: str) -> Any:
    if text == "":
        return None
    if name == "is_day_over":
        return text == "true"
    if name.endswith("_cost"):
        return Decimal(text)
    if name.startswith("is_"):
        return {"true": True, "false": False}[text]
    return int(text) if name.endswith(("_count", "_tokens")) else text


def test_a_table_is_sorted_by_exact_amounts_and_its_caption_says_how(show: Open) -> None:
    page = show()
    table = page.locator(".datasets")
    caption = table.locator(".order")
    assert caption.inner_text() == ", largest change first"
    button = table.get_by_role("button", name="Cost", exact=True)
    for words, turn in (("largest first", True), ("smallest first", False)):
        button.click()
        assert caption.inner_text() == f", by cost, {words}"
        exact = table.locator("tbody td:nth-child(2)").evaluate_all(
            "all => all.map(one => one.querySelector('data') ? one.querySelector('data').value : null)"
        )
        known = [Decimal(value) for value in exact if value is not None]
        assert known == sorted(known, reverse=turn)
        assert exact[len(known) :] == [None] * (len(exact) - len(known)), "what is unknown comes last"
    table.get_by_role("button", name="Dataset", exact=True).click()
    assert caption.inner_text() == ", by dataset, A to Z"
    names = [name.lower() for name in texts(table.locator("tbody th"))]
    assert names == sorted(names)


def test_costs_by_attribute_are_shown_for_a_dataset_that_is_selected_or_clicked(show: Open) -> None:
    page = show()
    shown = page.locator("[data-scope]:visible")

    def sums() -> list[str | None]:
        return [one.get_attribute("value") for one in shown.locator("tfoot tr:last-child td:nth-child(2) data").all()]

    def expected(place: int) -> list[str]:
        return [formatting.exact(one.groups[place].whole.now.cost) for one in DATA.by_attribute]

    assert sums() == expected(0)
    page.get_by_label("Dataset", exact=True).select_option(index=2)
    assert sums() == expected(2)
    page.locator(f"[data-dataset='{DATA.datasets[0].key}'] .pick").click()
    assert sums() == expected(1)
    assert page.get_by_label("Dataset", exact=True).input_value() == DATA.datasets[0].key
    page.get_by_label("Dataset", exact=True).select_option(label="All datasets")
    assert sums() == expected(0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_accessibility_problem(show: Open, width: str, scheme: str) -> None:
    page = show(color_scheme=scheme, viewport={"width": WIDTHS[width], "height": 900})
    for one in page.locator("summary").all():
        one.click()
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found] == []


def test_axe_finds_no_serious_accessibility_problem_for_an_empty_lake(show: Open) -> None:
    page = show(nothing_read())
    assert Axe().run(page).response["violations"] == []
    assert "make demo" in page.get_by_role("main").inner_text()


@pytest.mark.parametrize("data", [DATA, nothing_read()], ids=["full", "empty"])
def test_a_phone_does_not_scroll_sideways(show: Open, data: ReportData) -> None:
    page = show(data, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("visualViewport.scale") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_of_300_datasets_scrolls_by_itself_with_its_head_and_sums_in_sight(show: Open, width: str) -> None:
    data = report_of(*(daily(FIRST, number, "0.25") for number in range(1, 301)))
    page = show(data, viewport={"width": WIDTHS[width], "height": 900})
    assert page.evaluate("document.documentElement.scrollHeight") < 12_000
    table = page.locator(".scroll", has=page.locator("table.datasets"))
    table.scroll_into_view_if_needed()
    top, bottom = table.evaluate("one => [one.getBoundingClientRect().top, one.getBoundingClientRect().bottom]")
    for part in ("thead", "tbody tr:nth-child(150)", "tfoot"):
        table.evaluate("(one, part) => one.scrollTop = one.querySelector(part).offsetTop - 300", part)
        for seen in ("thead", "tfoot", part):
            box = table.locator(seen).bounding_box()
            assert box is not None
            assert top - 1 <= box["y"] <= box["y"] + box["height"] <= bottom + 1
    assert texts(table.locator("tfoot tr"))[0].split()[:2] == ["All", "$75.00"]


def test_readings_of_many_judge_projects_are_folded_away(show: Open) -> None:
    [one] = judge_reading("2", "2").readings.values()
    for count in (3, 40):
        readings = {f"0000{number:04d}-0000-4000-8000-000000000001": one for number in range(count)}
        data = replace(DATA, judge_readings=JudgeReadings(readings))
        found = show(data).locator(".unattributed")
        assert found.count() == count
        assert found.first.is_visible() == (count == 3)


def test_a_caveat_with_a_long_word_is_no_wider_than_a_phone(show: Open) -> None:
    reading = judge_reading("1", "1", skipped={"more than SESSIONS_PIPELINE_JUDGE_REQUESTS": 8})
    page = show(replace(DATA, judge_readings=reading), viewport={"width": WIDTHS["phone"], "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS["phone"]


def test_a_long_feedback_key_leaves_room_for_the_experiments_names(show: Open) -> None:
    scores = [{"feedback_key": "k" * 180, "scope": "run", "average": 0.5, "count": 9}]
    page = show(report_of(daily(FIRST, 1, "1"), experiments=[summary(1, "1", name="ab-" * 60, scores=scores)]))
    row = page.locator("tr[data-experiment]").bounding_box()
    assert row is not None
    assert row["height"] < 250


def test_on_a_phone_a_heading_is_above_both_values_of_its_column(show: Open) -> None:
    page = show(viewport={"width": 390, "height": 844})
    lefts = """header => {
        const [place, cells] = [header.cellIndex, [...document.querySelectorAll(".datasets tbody tr")]];
        return cells.flatMap((row) => [...row.cells[place].querySelectorAll("data, .delta")])
            .map((value) => value.getBoundingClientRect().right - header.firstChild.getBoundingClientRect().left);
    }"""
    for name in ("Change", "Per trace"):
        ends = page.locator(".datasets thead th", has_text=name).evaluate(lefts)
        assert len(ends) > 10
        assert min(ends) > 0


def test_on_a_tablet_names_are_not_so_narrow_that_their_words_break(show: Open) -> None:
    page = show(viewport={"width": 800, "height": 900})
    in_ems = "all => all.map(one => one.offsetWidth / parseFloat(getComputedStyle(one).fontSize))"
    assert min(page.locator(".datasets tbody .name").evaluate_all(in_ems)) >= 7


@pytest.mark.parametrize("medium", ["screen", "print"])
def test_the_charts_text_is_readable_where_the_chart_is_small(show: Open, medium: Any) -> None:
    page = show(viewport={"width": 800 if medium == "screen" else 688, "height": 900})
    page.emulate_media(media=medium)
    heights = page.locator(".wide text").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert min(heights) >= 11


def test_a_phone_gets_a_chart_drawn_for_its_width(show: Open) -> None:
    page = show(viewport={"width": 390, "height": 844})
    chart = page.locator(".stack .chart:visible")
    assert chart.count() == 1
    sizes = chart.locator("text").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert min(sizes) > 9


def test_dark_and_light_follow_the_readers_setting(show: Open) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page = show(color_scheme=scheme)
        shades[scheme] = [
            page.evaluate("getComputedStyle(document.body).backgroundColor"),
            page.evaluate("getComputedStyle(document.body).color"),
            page.locator(".chart text").first.evaluate("one => getComputedStyle(one).fill"),
            page.locator(".s0").first.evaluate("one => getComputedStyle(one).fill"),
        ]
    assert all(light != dark for light, dark in zip(*shades.values(), strict=True))


def test_it_prints_on_a4_in_dark_on_white_without_controls(show: Open, tmp_path: Path) -> None:
    page = show(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.total')).color") == "rgb(27, 36, 48)"
    assert not page.locator(".tools:visible, #more:visible, .skip:visible").count()
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert b"/MediaBox [0 0 594.95996 841.91998]" in pdf or b"/MediaBox [0 0 595 842]" in pdf
    assert 4 <= pdf.count(b"/Type /Page\n") <= 20
    # Nothing is wider than the page without its margins.
    page.set_viewport_size({"width": 688, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") == 688


def test_all_rows_are_printed_and_every_page_repeats_the_headers(show: Open) -> None:
    page = show()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#rows tbody tr:visible").count() == len(ROWS)
    assert page.locator(".buckets tbody tr:visible").count() == len(DATA.buckets)
    assert page.locator("#rows thead").evaluate("one => getComputedStyle(one).display") == "table-header-group"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#rows tbody tr").count() == 50


def test_the_script_writes_names_as_text_never_as_markup(show: Open) -> None:
    page = show()
    page.get_by_label("Search by").fill("alert(1)")
    shown = set(column(page, 2))
    assert shown == {SCRIPT, '"</script><img src=x onerror=alert(1)>'}
    assert page.locator("img, iframe").count() == 0
    assert page.locator("script").count() == 2
    page.get_by_label("Search by").fill(HOSTILE_NAMES[2])
    assert set(column(page, 2)) == {HOSTILE_NAMES[2]}


def test_touching_a_mark_in_the_chart_shows_its_value(show: Open) -> None:
    page = show()
    mark = page.locator(".wide [data-tip]").last
    mark.scroll_into_view_if_needed()
    mark.hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    assert tip.inner_text() == mark.get_attribute("data-tip")
    assert "$" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_keyboard_reaches_every_control(show: Open) -> None:
    page = show()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the numbers"
    page.locator("#search").focus()
    page.keyboard.type("2025-03-30")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.get_by_label("Only with unknown costs").is_checked()
    page.keyboard.press("Space")
    for _ in range(5):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Cost"
    page.keyboard.press("Enter")
    assert page.locator("th[data-column=total_cost]").get_attribute("aria-sort") == "descending"


def test_without_scripts_the_page_still_shows_everything_but_the_older_rows(show: Open) -> None:
    page = show(java_script_enabled=False)
    assert page.locator("#rows tbody tr").count() == 50
    assert not page.locator(".tools:visible").count()
    assert page.locator("[data-scope]:visible").count() == len(DATA.by_attribute) == 2
    assert page.get_by_role("status").inner_text() == f"50 of {len(ROWS)} rows"


def test_the_script_rounds_money_as_the_page_does(show: Open) -> None:
    amounts = ["0", "0.995", "0.005", "0.0995", "2.675", "2.665", "0.00000149", "0.000000000000000001", "0.000001"]
    amounts += ["99999999999999999999.999999999999999999", "1234567.125", "1234567.135", "0.125", "0.0125", "0.0135"]
    page = show(report_of(*(daily(FIRST, number, amount) for number, amount in enumerate(amounts))))
    page.locator("#rows thead").get_by_role("button", name="Cost", exact=True).click()
    exact = page.locator("#rows tbody data[title^='$']").evaluate_all(
        "all => all.map(one => [one.value, one.innerText])"
    )
    assert len(exact) == len(amounts)
    assert exact == [[value, formatting.money(Decimal(value))] for value, _ in exact]


def test_the_script_marks_sums_that_are_only_minimums(show: Open) -> None:
    row = daily(FIRST, 1, "5", session_count=2, unpriced_session_count=1)
    page = show(report_of(row, daily(LAST, 2, "1", zero_cost_with_tokens_count=1)))
    assert (column(page, 5), page.locator("#rows tfoot td.n").nth(2).inner_text()) == (
        ["0 and 1 at $0", "1"],
        "1 and 1 at $0",
    )
    assert column(page, 3) == ["$1.00", "≥ $5.00"]
    assert page.locator("#rows tfoot td.n").first.inner_text() == "≥ $6.00"
    page.get_by_label("Search by").fill(dataset(2))
    assert page.locator("#rows tfoot td.n").first.inner_text() == "$1.00"
