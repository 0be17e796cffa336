import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.errors import ArchitectureError
from featbench.stages.architecture import Architecture
from featbench.stages.specs import FilterBankSpec, NormalisationSpec, PointwiseSpec, PoolingSpec, StageSpec

PAPER = "64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4"

sides = st.integers(1, 999_999)
banks = st.builds(FilterBankSpec, sides, sides, st.none() | sides, st.booleans())
pointwise = st.builds(PointwiseSpec, st.sampled_from(["Rabs", "tanh", "relu", "shrink", "wta"]))
normalisations = st.builds(
    NormalisationSpec,
    st.sampled_from(["N", "Nsub", "Ndiv"]),
    st.integers(0, 499_999).map(lambda k: 2 * k + 1),
    st.booleans(),
)
plain_pooling = st.builds(PoolingSpec, st.sampled_from("AM"), sides, sides, st.none(), st.booleans())
power_pooling = st.builds(
    PoolingSpec,
    st.just("L"),
    sides,
    sides,
    st.decimals("1", "999999", places=6).map(float),
    st.booleans(),
)
sharp_pooling = st.builds(
    PoolingSpec,
    st.just("X"),
    sides,
    sides,
    st.decimals("0.000000000001", "999", places=12).map(float),
    st.booleans(),
)
others = st.lists(pointwise | normalisations | plain_pooling | power_pooling | sharp_pooling, max_size=4)
stages = st.builds(lambda before, bank, after: StageSpec((*before, bank, *after)), others, banks, others)
architectures = st.lists(stages, min_size=1, max_size=3).flatmap(
    lambda found: st.builds(
        Architecture,
        st.just(tuple(found)),
        st.frozensets(st.sampled_from(range(1, len(found)))) if len(found) > 1 else st.just(frozenset()),
    )
)

reproducible = settings(derandomize=True, deadline=None, database=None, max_examples=200)


@reproducible
@given(architectures)
def test_parser_reads_back_whatever_the_printer_writes(architecture):
    assert Architecture.parse(str(architecture)) == architecture


@pytest.mark.parametrize(
    ("token", "spec"),
    [
        ("64F9", FilterBankSpec(64, 9)),
        ("64C9", FilterBankSpec(64, 9, encoder=False)),
        ("256F9:16", FilterBankSpec(256, 9, 16)),
        ("256C9:16", FilterBankSpec(256, 9, 16, encoder=False)),
    ],
)
def test_filter_bank_tokens(token, spec):
    assert Architecture.parse(token).stages[0].operations == (spec,)


@pytest.mark.parametrize(
    ("token", "spec"),
    [
        ("Rabs", PointwiseSpec("Rabs")),
        ("tanh", PointwiseSpec("tanh")),
        ("relu", PointwiseSpec("relu")),
        ("shrink", PointwiseSpec("shrink")),
        ("wta", PointwiseSpec("wta")),
        ("N", NormalisationSpec("N", 9)),
        ("N5", NormalisationSpec("N", 5)),
        ("Nsub", NormalisationSpec("Nsub", 9)),
        ("Ndiv7", NormalisationSpec("Ndiv", 7)),
        ("Nz", NormalisationSpec("N", 9, zeros=True)),
        ("Nz5", NormalisationSpec("N", 5, zeros=True)),
        ("Nsubz", NormalisationSpec("Nsub", 9, zeros=True)),
        ("Ndivz7", NormalisationSpec("Ndiv", 7, zeros=True)),
        ("PA10/5", PoolingSpec("A", 10, 5)),
        ("PM5", PoolingSpec("M", 5, 5)),
        ("PM5/2", PoolingSpec("M", 5, 2)),
        ("PL2:6/4", PoolingSpec("L", 6, 4, 2.0)),
        ("PL2.5:6/4", PoolingSpec("L", 6, 4, 2.5)),
        ("PX4:6/4", PoolingSpec("X", 6, 4, 4.0)),
        ("PX0.5:6", PoolingSpec("X", 6, 6, 0.5)),
        ("PFA4/2", PoolingSpec("A", 4, 2, over_maps=True)),
        ("PFM4", PoolingSpec("M", 4, 4, over_maps=True)),
        ("PFL2:4/1", PoolingSpec("L", 4, 1, 2.0, over_maps=True)),
        ("PFX4:4/1", PoolingSpec("X", 4, 1, 4.0, over_maps=True)),
    ],
)
def test_tokens_beside_the_filter_bank(token, spec):
    assert Architecture.parse(f"8F3-{token}").stages[0].operations == (FilterBankSpec(8, 3), spec)


@pytest.mark.parametrize(
    "text",
    [
        PAPER,
        "N-64C9-relu-PM2",
        "8F3-PL2:6/4",
        "8F3-PX0.000000000001:6/4",
        "8F3-PX100000:6/4",
        "8F3-PFA4/2-N5-Ndiv7-wta",
        "8F3-Nz-Nsubz5-Ndivz",
        "64F9-Rabs-N-PA10/5 >+ 256F9:16-Rabs-N-PA6/4",
        "8F3 > 8F3 >+ 8F3",
    ],
)
def test_canonical_text_is_printed_as_it_was_written(text):
    assert str(Architecture.parse(text)) == text


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("  64F9 -Rabs- N>8F3  ", "64F9-Rabs-N > 8F3"),
        ("8F3>+ 4F3  >8F3", "8F3 >+ 4F3 > 8F3"),
        ("8F3-PM5/5", "8F3-PM5"),
        ("8F3-PA5", "8F3-PA5/5"),
        ("8F3-N9-Nsub9", "8F3-N-Nsub"),
        ("8F3-PL2.50:6", "8F3-PL2.5:6/6"),
    ],
)
def test_other_spellings_become_canonical(written, canonical):
    assert str(Architecture.parse(written)) == canonical


def test_order_of_operations_is_kept():
    stage = Architecture.parse("N-64C9-relu-PM2").stages[0]
    assert stage.bank == FilterBankSpec(64, 9, encoder=False)
    before, after = stage.around_bank()
    assert before == (NormalisationSpec(),)
    assert after == (PointwiseSpec("relu"), PoolingSpec("M", 2, 2))


@pytest.mark.parametrize(
    ("text", "token", "position", "expected"),
    [
        ("64G9", "64G9", 1, "64F9"),
        ("64F9-Rab-N", "Rab", 6, "Rabs"),
        ("64F9- rabs", "rabs", 7, "Rabs"),
        ("64F9-Rabs > 256F9:16-Q", "Q", 22, "PA10/5"),
        ("", "", 1, "a filter bank"),
        ("64F9--N", "", 6, "a filter bank"),
        ("64F9 > ", "", 8, "a filter bank"),
        ("64F9 >+ ", "", 9, "> and >+ stand between two stages"),
        (">+ 64F9", "", 1, "> and >+ stand between two stages"),
        ("64F9 >+> 8F3", "", 8, "> and >+ stand between two stages"),
        ("64F9 >++ 8F3", "+ 8F3", 8, "64F9"),
        ("64F9 > + 8F3", "+ 8F3", 8, "64F9"),
        ("64F9 +> 8F3", "64F9 +", 1, "64F9"),
        ("64F9 >+ 8F3 >+ 256F9-Q", "Q", 22, "PA10/5"),
        ("64F9-N4", "N4", 6, "odd"),
        ("64F9-N0", "N0", 6, "at least 1"),
        ("0F9", "0F9", 1, "number of filters must be at least 1"),
        ("8F0", "8F0", 1, "filter size must be at least 1"),
        ("8F3:0", "8F3:0", 1, "maps a filter sees must be at least 1"),
        ("8F3-PA0/5", "PA0/5", 5, "pooling window must be at least 1"),
        ("8F3-PA5/0", "PA5/0", 5, "pooling stride must be at least 1"),
        ("8F3-PL6/4", "PL6/4", 5, "exponent, as in PL2:6/4"),
        ("8F3-PX6/4", "PX6/4", 5, "sharpness, as in PX2:6/4"),
        ("8F3-PA2:6/4", "PA2:6/4", 5, "takes no parameter"),
        ("8F3-PL0.5:6/4", "PL0.5:6/4", 5, "exponent must be at least 1"),
        ("8F3-PX0:6/4", "PX0:6/4", 5, "sharpness must be positive"),
        ("8F3-PA-5", "PA", 5, "pooling (PA10/5"),
        ("8F3-N5.5", "N5.5", 5, "N5"),
        ("1234567F3", "1234567F3", 1, "64F9"),
    ],
)
def test_error_names_token_position_and_what_was_expected(text, token, position, expected):
    with pytest.raises(ArchitectureError) as caught:
        Architecture.parse(text)
    message = str(caught.value)
    assert f"cannot read {token!r} at position {position} of {text!r}" in message
    assert expected in message.split(": ", 1)[1]


@pytest.mark.parametrize(
    ("text", "stage", "found"),
    [("Rabs-N", 1, "none"), ("64F9 > Rabs", 2, "none"), ("8F3 >+ N", 2, "none"), ("64F9-8C3", 1, "64F9 and 8C3")],
)
def test_stage_without_exactly_one_filter_bank_is_refused_by_number(text, stage, found):
    with pytest.raises(ArchitectureError, match=f"stage {stage} of .* exactly one filter bank, found {found};"):
        Architecture.parse(text)


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        (PAPER, (1, 143, 143), [(64, 26, 26), (256, 4, 4)]),
        (PAPER, (1, 83, 83), [(64, 14, 14), (256, 1, 1)]),
        ("64F9-Rabs-N-PM5 > 256F9:16-Rabs-N-PM4", (1, 143, 143), [(64, 27, 27), (256, 4, 4)]),
        ("32F5-Rabs-N-PA2/2 > 64F5:16-Rabs-N-PA2/2", (1, 28, 28), [(32, 12, 12), (64, 4, 4)]),
        ("8F5-PA4/4 > 24F6:4-PA3/3", (1, 96, 96), [(8, 23, 23), (24, 6, 6)]),
        ("16C3-PFA4/2-Nsub", (3, 20, 11), [(7, 18, 9)]),
        ("PFM2-8F3", (4, 5, 9), [(8, 3, 7)]),
    ],
)
def test_shapes_of_published_and_other_architectures(text, shape, expected):
    assert Architecture.parse(text).shapes(shape) == expected


@pytest.mark.parametrize(
    ("text", "shape", "parts"),
    [
        ("64F9", (1, 8, 20), ["64F9 in stage 1", "needs maps of at least 9×9", "8×20 came in"]),
        (PAPER, (1, 40, 40), ["256F9:16 in stage 2", "at least 9×9", "5×5 came in"]),
        ("8F3 >+ 8F9", (1, 8, 8), ["'8F3 >+ 8F9'", "8F9 in stage 2", "6×6 came in"]),
        ("8F3-PA10/5", (1, 20, 11), ["PA10/5 in stage 1", "at least 10×10", "18×9 came in"]),
        ("8F3 > 8F3:9", (1, 20, 20), ["8F3:9 in stage 2", "see 9 maps", "only 8 come in"]),
        ("8F3-PFA9/1", (1, 20, 20), ["PFA9/1 in stage 1", "at least 9 maps", "only 8 come in"]),
    ],
)
def test_misfit_says_what_came_in_and_what_is_needed(text, shape, parts):
    with pytest.raises(ArchitectureError) as caught:
        Architecture.parse(text).shapes(shape)
    for part in parts:
        assert part in str(caught.value)


def test_maps_just_large_enough_fit():
    assert Architecture.parse("8F9-PM5").shapes((1, 13, 13)) == [(8, 1, 1)]


def test_bank_input_is_the_shape_after_the_operations_before_it():
    stage = Architecture.parse("PA2/2-PFA2/1-8F3-PM2").stages[0]
    assert stage.bank_input((4, 11, 9)) == (3, 5, 4)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (PAPER, set()),
        ("8F3 >+ 4F3", {1}),
        ("8F3 >+ 4F3 > 2F3", {1}),
        ("8F3 > 4F3>+2F3", {2}),
        ("8F3>+4F3>+2F3", {1, 2}),
    ],
)
def test_kept_are_the_stages_before_a_plus(text, kept):
    architecture = Architecture.parse(text)
    assert architecture.kept == kept
    assert architecture.stages == Architecture.parse(text.replace("+", "")).stages


@pytest.mark.parametrize(("kept", "named"), [({2}, "2"), ({0, 1}, "0"), ({1, 3, 7}, "3, 7")])
def test_only_stages_before_the_last_can_be_kept(kept, named):
    stages = Architecture.parse(PAPER).stages
    with pytest.raises(ArchitectureError, match="before the last may be kept") as caught:
        Architecture(stages, frozenset(kept))
    assert str(caught.value).endswith(f": not {named}")


def test_kept_stages_make_another_architecture():
    plain, kept = Architecture.parse(PAPER), Architecture.parse(PAPER.replace(">", ">+"))
    assert plain != kept
    assert len({plain, kept, Architecture.parse(str(kept))}) == 2


def test_specs_are_frozen_and_hashable():
    first, second = Architecture.parse(PAPER), Architecture.parse(PAPER)
    assert hash(first) == hash(second)
    with pytest.raises(AttributeError):
        first.stages = ()


@pytest.mark.parametrize("value", [None, 3, ["4F3"], b"4F3", 4.0, {}])
def test_an_architecture_is_read_from_text_alone(value):
    with pytest.raises(ArchitectureError, match=r"^an architecture is a text, such as '64F9-Rabs-N-PA10/5', not "):
        Architecture.parse(value)
