import csv
import io
import json
import os

import pytest
from helpers.images import image_folder


@pytest.mark.parametrize("name", [b"m\xfcn", b"a|b", b"line\nbreak", "\u6f22\u5b57".encode(), b"=1+1"])
def test_a_data_set_of_any_name_has_a_table_in_every_format(run, tmp_path, name):
    folder = tmp_path / os.fsdecode(name)
    for seed, label in enumerate("xy"):
        image_folder(folder / label, 6, (8, 8), seed=seed)
    command = ("compare", "--protocol", "digits", "--features", "random", "--regimes", "R", "--draws", "1")
    options = ("--dataset", f"folder:{folder}", "--train-per-class", "4", "--quiet", "--no-track")
    ran = {form: run(*command, *options, "--format", form) for form in ("table", "markdown", "csv", "json")}
    assert {one.code for one in ran.values()} == {0}
    shown = {row["dataset"] for row in json.loads(ran["json"].out)}
    assert shown == {f"folder:{folder}".encode(errors="backslashreplace").decode()}
    assert len(list(csv.DictReader(io.StringIO(ran["csv"].out)))) == 3
    assert len([line for line in ran["markdown"].out.splitlines() if line.startswith("|")]) == 5
    assert "features " in ran["table"].out.splitlines()[3]
