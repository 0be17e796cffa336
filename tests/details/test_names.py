"""Names of files and classes, whatever they hold, in CSV files, on the page and on the pictures."""

import os

import pytest
from helpers.pages import read_csv, read_page

from featbench.report.names import make_csv_safe
from featbench.system.printable import make_printable

NAMES = [
    "plain",
    "=1+1",
    "+cmd|' C calc'!A0",
    "-2+3",
    "@SUM(A1:A9)",
    "a,b;c",
    'quo"te"s',
    "it's",
    "line\nbreak",
    "carriage\rreturn",
    "tab\tstop",
    "<script>alert(1)<script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "&amp;&lt;",
    "javascript:alert(1)",
    "$x^2$",
    "日本語",
    "😀",
    "‮gnp.exe",
    "\x1b[31mred",
    os.fsdecode(b"M\xfcn"),
    os.fsdecode(b"\xff\xfe=1"),
    "x" * 200,
    " leading",
    "%00",
    "{0}",
    "C:\\temp",
]
"""All are names that a file of Linux may have."""

FILES = ["classes.csv", "confusion.csv", "confusion.png", "predictions.csv", "wrong.png"]


TAGS = (
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "a", "dl", "dt", "dd", "div"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "span", "i", "b", "u", "br", "code", "pre"),
    *("details", "summary", "ul", "li", "figure", "figcaption", "img"),
)

KEYS = (
    *("lang", "charset", "http-equiv", "content", "name", "class", "style", "scope", "role", "tabindex"),
    *("src", "alt", "loading", "href", "aria-label", "aria-hidden", "aria-current"),
)


def check_page(page):
    """Check that a page has no tag, attribute or address that a name could have brought."""
    assert {tag for tag, _ in page.tags} <= set(TAGS)
    assert {key for _, attributes in page.tags for key in attributes} <= set(KEYS)
    assert [link["href"] for link in page.find("a")] == FILES
    assert all(image["src"].startswith("data:image/") for image in page.images)


@pytest.mark.parametrize("name", NAMES)
def test_a_file(photographs, compare_row, explain_row, name):
    compare_row(photographs(files=[f"{name}.png"]), draws=6)
    folder = explain_row()
    page = read_page(folder / "index.html")
    check_page(page)
    named = [f"{kind}/{name}.png" for kind in ("ant", "bee", "cat")]
    lines = read_csv(folder / "predictions.csv")
    assert {line["file"] for line in lines} >= {make_csv_safe(file) for file in named}
    wrong = {line["file"] for line in lines if line["right"] == "0"}
    assert wrong & {make_csv_safe(file) for file in named}
    for file in named:
        shown = [image for image in page.images if image["alt"].startswith(f"{make_printable(file)}: ")]
        assert len(shown) == (make_csv_safe(file) in wrong)


@pytest.mark.parametrize("name", NAMES)
def test_a_class(photographs, compare_row, explain_row, name):
    root = photographs(["ant", name, "cat"])
    row = compare_row(root, draws=4)
    folder = explain_row()
    page = read_page(folder / "index.html")
    check_page(page)
    field = make_csv_safe(name)
    lines = read_csv(folder / "predictions.csv")
    assert {line["true class"] for line in lines} == {"ant", field, "cat"}
    assert {line["class"] for line in read_csv(folder / "classes.csv")} == {"ant", field, "cat"}
    assert set(read_csv(folder / "confusion.csv")[0]) == {"true class", "ant", field, "cat"}
    assert make_printable(name) in page.text
    for draw, score in enumerate(row["scores"]):
        rights = [line["right"] == "1" for line in lines if line["draw"] == str(draw)]
        assert 100 * sum(rights) / len(rights) == pytest.approx(score, abs=1e-12)


def test_an_image_that_is_left_out_shifts_no_name(photographs, compare_row, explain_row):
    root = photographs(count=9)
    (root / "ant" / "03.png").write_bytes(b"damaged")
    (root / "bee" / "00.png").write_bytes(b"")
    compare_row(root, draws=6, skip_bad_images=True)
    folder = explain_row(skip_bad_images=True)
    lines = read_csv(folder / "predictions.csv")
    files = {line["file"] for line in lines}
    assert len(files) > 20
    assert not files & {"ant/03.png", "bee/00.png"}
    assert all(line["file"].startswith(f"{line['true class']}/") for line in lines)
    positions = {line["file"]: int(line["image"]) for line in lines}
    assert positions == {file: 9 * ("abc".index(file[0])) + int(file[4:6]) for file in files}
    text = read_page(folder / "index.html").text
    assert "2, which could not be used" in text
    assert "--skip-bad-images --output model" in text


def test_images_of_no_file_are_known_by_their_number(photographs, compare_row, explain_row):
    compare_row("tiny", draws=3)
    folder = explain_row()
    lines = read_csv(folder / "predictions.csv")
    assert {line["file"] for line in lines} == {""}
    assert all("abc"[int(line["image"]) // 12] == line["true class"] for line in lines)
    page = read_page(folder / "index.html")
    assert all(image["alt"].startswith("image ") for image in page.images[1:])


def test_bad_images_of_no_file_shift_no_number(compare_row, explain_row, tiny):
    source = tiny.read_text()
    bad = "pixels = (patterns[labels] + 1.5 * noise).astype(np.float32)\n        pixels[[2, 13]] = np.nan\n"
    source = source.replace(
        "        return featbench.Images((patterns", f"        {bad}        return featbench.Images((patterns"
    )
    tiny.write_text(source.replace("(patterns[labels] + 1.5 * noise).astype(np.float32), labels", "pixels, labels"))
    compare_row("tiny", draws=4, skip_bad_images=True)
    lines = read_csv(explain_row(skip_bad_images=True) / "predictions.csv")
    assert {int(line["image"]) for line in lines} == set(range(36)) - {2, 13}
    assert all("abc"[int(line["image"]) // 12] == line["true class"] for line in lines)


def test_a_plugin_may_name_its_images(compare_row, explain_row, tiny):
    tiny.write_text(tiny.read_text().replace('"c"))', '"c"), names=[f"={n}<b>" for n in range(36)])'))
    compare_row("tiny", draws=3)
    folder = explain_row()
    assert all(line["file"] == f"'={line['image']}<b>" for line in read_csv(folder / "predictions.csv"))
    check_page(read_page(folder / "index.html"))
