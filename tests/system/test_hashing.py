import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.system.hashing import code_hash, content_hash

DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aé±", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)

CODE = '''
"""A module."""

class A:
    """A class."""

    size = 3

    def f(self, x, y=1):
        """A function."""
        return x + y  # the sum
'''


def test_a_content_hash_is_the_sha256_of_canonical_json():
    text = '{"a":[1,0.5,null,true],"b":"±"}'
    assert content_hash({"b": "±", "a": [1, 0.5, None, True]}) == hashlib.sha256(text.encode()).hexdigest()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.text("abc", max_size=3), DOCUMENTS, max_size=4))
def test_the_order_of_keys_does_not_matter(document):
    assert content_hash(document) == content_hash(dict(reversed(document.items())))


@pytest.mark.parametrize(
    "one, other",
    [({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), ([1, 2], [2, 1]), ({"a": None}, {}), ("1", 1), (0.1, 0.1 + 2**-56)],
)
def test_different_documents_have_different_hashes(one, other):
    assert content_hash(one) != content_hash(other)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_does_not_know_is_refused(number):
    with pytest.raises(ValueError, match="JSON"):
        content_hash({"a": number})


@pytest.mark.parametrize(
    "old, new",
    [
        ("  # the sum", "  # something else"),
        ('"""A module."""', '"""Another\n\nmodule."""'),
        ('"""A module."""\n', ""),
        ('    """A class."""\n', ""),
        ('"""A function."""', "'of two numbers'"),
        ("return x + y", "return (x +\n            y)"),
        ("\n    size = 3\n", "\n\n\n    size   =   3\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_change_a_code_hash(old, new):
    assert CODE.count(old) == 1
    assert code_hash(CODE.replace(old, new)) == code_hash(CODE)


@pytest.mark.parametrize(
    "old, new",
    [("x + y", "x - y"), ("y=1", "y=2"), ("size = 3", 'size = "3"'), ("def f", "def g"), ("class A", "class A(B)")],
)
def test_code_that_does_something_else_has_another_hash(old, new):
    assert CODE.count(old) == 1
    assert code_hash(CODE.replace(old, new)) != code_hash(CODE)


def test_text_that_is_returned_is_code():
    assert code_hash('def f():\n    return "a"') != code_hash('def f():\n    return "b"')


def test_a_function_of_nothing_but_a_docstring_is_an_empty_one():
    assert code_hash('def f():\n    """Nothing."""') == code_hash("def f():\n    pass")


def test_code_that_is_not_python_is_refused():
    with pytest.raises(SyntaxError):
        code_hash("def f(:")
