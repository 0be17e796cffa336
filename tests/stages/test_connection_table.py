import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.stages.connection_table import draw_connection_table, make_full_table

reproducible = settings(derandomize=True, deadline=None, database=None, max_examples=150)

cases = st.integers(1, 70).flatmap(
    lambda maps: st.tuples(st.just(maps), st.integers(1, 300), st.integers(1, maps), st.integers(0, 2**63 - 1))
)


@reproducible
@given(cases)
def test_every_group_sees_distinct_maps_that_exist(case):
    maps, filters, fan_in, seed = case
    table = draw_connection_table(maps, filters, fan_in, seed)
    assert table.dtype == np.int64
    assert table.shape[1] == fan_in
    for row in table:
        assert len(set(row)) == fan_in
        assert 0 <= row.min() <= row.max() < maps


@reproducible
@given(cases)
def test_filters_are_dealt_to_as_few_equal_groups_of_at_most_sixteen_as_there_are(case):
    maps, filters, fan_in, seed = case
    groups = len(draw_connection_table(maps, filters, fan_in, seed))
    assert filters % groups == 0
    assert filters // groups <= 16
    assert not [fewer for fewer in range(1, groups) if filters % fewer == 0 and filters // fewer <= 16]


@reproducible
@given(cases)
def test_every_map_is_used_equally_often_give_or_take_one(case):
    maps, filters, fan_in, seed = case
    uses = np.bincount(draw_connection_table(maps, filters, fan_in, seed).ravel(), minlength=maps)
    assert uses.max() - uses.min() <= 1


def test_table_of_the_paper_uses_each_of_64_maps_in_four_groups():
    table = draw_connection_table(64, 256, 16, seed=3)
    assert table.shape == (16, 16)
    assert np.bincount(table.ravel()).tolist() == [4] * 64


def test_four_groups_in_a_row_walk_through_one_permutation():
    table = draw_connection_table(64, 256, 16, seed=3)
    for start in range(0, 16, 4):
        assert sorted(table[start : start + 4].ravel()) == list(range(64))
    assert table[:4].tolist() != table[4:8].tolist()


def test_seed_alone_decides_the_table():
    assert np.array_equal(draw_connection_table(64, 256, 16, 7), draw_connection_table(64, 256, 16, 7))
    assert not np.array_equal(draw_connection_table(64, 256, 16, 7), draw_connection_table(64, 256, 16, 8))


def test_subsets_are_drawn_evenly_over_seeds():
    # 3 of 6 maps: each pair shares the first group in 1 of 5 draws.
    together = np.zeros((6, 6))
    for seed in range(2000):
        row = draw_connection_table(6, 16, 3, seed)[0]
        together[np.ix_(row, row)] += 1
    pairs = together[np.triu_indices(6, 1)] / 2000
    assert np.abs(pairs - 0.2).max() < 0.04


@pytest.mark.parametrize("maps", [1, 5])
def test_full_table_is_one_group_that_sees_every_map_in_order(maps):
    assert make_full_table(maps).tolist() == [list(range(maps))]
