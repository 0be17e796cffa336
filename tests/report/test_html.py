from html.parser import HTMLParser

import pytest

from featbench.report.html import embed_image, make_scrollable, quote, render_definitions, render_document, render_table

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)",
    "</table></main></body>",
    "&lt;b&gt;",
    "a & b",
    "--><!--",
    "]]>",
    "\udcfc\x00\x1b[31m",
    "‮gnp",
    "</title><style>*{display:none}</style>",
]


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_text_wherever_it_stands(name):
    plain = render_document("x", [render_table("x", ["x", "x"], [["x", "x"]]), make_scrollable("x", "x")])
    body = [render_table(name, [name, name], [[quote(name), quote(name)]]), make_scrollable(name, quote(name))]
    reader = read(render_document(name, body))
    assert reader.tags == read(plain).tags
    assert {key for key, _ in reader.attributes} == {key for key, _ in read(plain).attributes}
    assert reader.text.count(read(quote(name)).text) == 7


@pytest.mark.parametrize("name", NASTY)
def test_an_image_keeps_its_text(name):
    reader = read(embed_image(b"\x89PNG", "png", name))
    assert reader.tags == ["img"]
    assert dict(reader.attributes) == {"src": "data:image/png;base64,iVBORw==", "alt": read(quote(name)).text}


def test_a_page_loads_nothing_and_runs_nothing():
    reader = read(render_document("t", [render_definitions([("term", "<b>meaning</b>")])]))
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in reader.attributes
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert ("lang", "en") in reader.attributes


def test_a_table_marks_its_headings_numbers_and_the_chosen_row():
    text = render_table("c", ["name", "n"], [["a", "1"], ["b", "2"]], numbers=1, chosen=1)
    assert '<th scope="col" class="number">n</th>' in text
    assert '<tr class="chosen" aria-current="true"><th scope="row">b</th><td class="number">2</td></tr>' in text
    assert '<tr><th scope="row">a</th><td class="number">1</td></tr>' in text
