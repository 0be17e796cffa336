"""Pages and CSV files, read back as a browser and a spreadsheet read them."""

import base64
import csv
import io
from html.parser import HTMLParser

from PIL import Image


class Page(HTMLParser):
    """The tags of a page with their attributes, its images, and its text without the style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.text, self._inside = [], [], "", False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))
        self._inside = self._inside or tag == "style"

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "style"

    def handle_data(self, data):
        if not self._inside:
            self.text += data

    def find(self, tag):
        """Return the attributes of every tag of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    def decode_image(self, alt):
        """Return the one embedded image whose text begins like this."""
        (found,) = [image for image in self.images if image["alt"].startswith(alt)]
        return Image.open(io.BytesIO(base64.b64decode(found["src"].partition("base64,")[2])))


def read_page(path):
    return Page(path.read_text("utf-8"))


def read_csv(path):
    """Return the lines of a CSV file as dictionaries; a line with too few or too many fields is an error."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    assert {len(row) for row in rows} == {len(rows[0])}
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
