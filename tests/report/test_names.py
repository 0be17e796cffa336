import pytest

from featbench.report.names import make_csv_safe, shorten


@pytest.mark.parametrize(
    "name, field",
    [
        ("plain.png", "plain.png"),
        ("=1+1.png", "'=1+1.png"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1", "'＝1"),
        ("＠a", "'＠a"),
        ("-5", "-5"),
        ("+1e3", "+1e3"),
        ("-", "'-"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("a\nb", "a\\nb"),
        ("M\udcfcn", "M\\xfcn"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_no_name_is_a_formula_or_breaks_a_line(name, field):
    assert make_csv_safe(name) == field


@pytest.mark.parametrize("length", range(3, 12))
def test_a_name_is_shortened_in_its_middle(length):
    short = shorten("abcdefghij", length)
    assert len(short) == min(length, 10)
    assert short[0] == "a" and (length < 4 or short[-1] == "j")
    assert ("…" in short) == (length < 10)
