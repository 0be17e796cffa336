"""What `featbench.explain` takes, and refuses in one sentence."""

from pathlib import Path

import numpy as np
import pytest

import featbench
from featbench.errors import FeatbenchError


@pytest.mark.parametrize("row", [1, np.int64(1), "1", np.str_("random"), "random R nearest", " random  R "])
def test_rows_as_callers_write_them(photographs, compare_row, explain_row, row):
    compare_row(photographs())
    assert explain_row(row).name == "details"


@pytest.mark.parametrize("kind", [str, Path, np.str_])
def test_places_as_callers_write_them(photographs, compare_row, tiny, tmp_path, home, kind):
    compare_row(photographs())
    page = featbench.explain("random", output=kind(tmp_path / "there"), plugins=kind(tiny), home=kind(home))
    assert page == tmp_path / "there" / "index.html"
    assert page.is_file()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"row": None}, "row takes"),
        ({"row": 1.0}, "row takes"),
        ({"row": True}, "row takes"),
        ({"row": ["random"]}, "row takes"),
        ({"output": None}, "output takes a path"),
        ({"output": ""}, "output takes a path"),
        ({"output": 3}, "output takes a path"),
        ({"output": "a\0b"}, "output takes a path"),
        ({"comparison": 3}, "comparison takes a text"),
        ({"comparison": ""}, "comparison takes a text"),
        ({"skip_bad_images": "no"}, "skip_bad_images takes True or False"),
        ({"plugins": 3}, "plugins takes"),
        ({"home": 3.5}, "home takes a path"),
        ({"data_dir": b"x"}, "data_dir takes a path"),
    ],
)
def test_what_is_no_argument_is_refused_by_its_name(
    photographs, compare_row, explain_row, tiny, tmp_path, given, message
):
    compare_row(photographs())
    with pytest.raises(FeatbenchError, match=message) as caught:
        featbench.explain(**{"plugins": [tiny], "output": tmp_path / "details", **given})
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "details").exists()


def test_a_keyword_that_is_nearly_right_is_suggested():
    with pytest.raises(TypeError, match="did you mean 'output'"):
        featbench.explain(outputs="x")


def test_errors_speak_of_arguments(photographs, compare_row, explain_row):
    root = photographs()
    (root / "ant" / "03.png").write_bytes(b"damaged")
    compare_row(root, skip_bad_images=True)
    with pytest.raises(ValueError, match="skip_bad_images"):
        explain_row()
