"""Weighted ray sampling: the weights of the paper, and draws that follow them exactly."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from training.data.sampling import balance_weights, draw_group_counts, frame_weights


def test_the_balance_is_that_of_the_paper():
    # exp(0.005 (1000/1000 - 1)) = 1; exp(0.005 (1000/10 - 1)) = exp(0.495); exp(0.005 * 999) = exp(4.995) = 147.7
    np.testing.assert_allclose(balance_weights([1000, 10, 1]), [1, math.exp(0.495), math.exp(4.995)])


def test_the_balance_is_capped_also_for_classes_never_seen():
    np.testing.assert_allclose(balance_weights([10**9, 1, 0], cap=50), [1, 50, 50])


@pytest.mark.parametrize("counts", [[-1, 2], [math.nan], [[1, 2]]])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(ValueError, match="class counts"):
        balance_weights(counts)


def test_other_frames_weigh_less_and_nothing_where_things_move():
    np.testing.assert_array_equal(frame_weights([False, True]), [[1, 1], [0.3, 0]])


def chances_by_hand(weights: list[float], count: int) -> dict[tuple[int, ...], float]:
    """Probability of each set when items are drawn one after the other in proportion to their weights."""
    chances: dict[tuple[int, ...], float] = {}
    for order in itertools.permutations(range(len(weights)), count):
        chance, left = 1.0, sum(weights)
        for item in order:
            chance *= weights[item] / left
            left -= weights[item]
        name = tuple(sorted(order))
        chances[name] = chances.get(name, 0.0) + chance
    return chances


def test_sets_come_as_often_as_drawing_one_after_the_other_gives_them():
    """Chi-square over all outcomes of a small case, whose chances are worked out by enumerating every order."""
    sizes, weights, count, draws = [2, 1, 2], [1.0, 4.0, 0.3], 3, 8_000
    items = [group for group, size in enumerate(sizes) for _ in range(size)]
    expected: dict[tuple[int, ...], float] = {}
    for chosen, chance in chances_by_hand([weights[group] for group in items], count).items():
        name = tuple(np.bincount([items[item] for item in chosen], minlength=3))
        expected[name] = expected.get(name, 0.0) + chance
    rng = np.random.default_rng(1)
    seen = dict.fromkeys(expected, 0)
    for _ in range(draws):
        seen[tuple(int(value) for value in draw_group_counts(rng, sizes, weights, count))] += 1
    result = stats.chisquare(list(seen.values()), [draws * chance for chance in expected.values()])
    assert result.pvalue > 0.001


def test_frequencies_agree_with_exponential_keys_on_every_item():
    """Against Efraimidis and Spirakis' own algorithm, with a class a thousand times rarer than the rest."""
    sizes = np.array([20_000, 20, 500])
    weights = np.append(balance_weights(sizes)[:2], 0.3)  # 1, 147.7 and static rays of other frames
    items, count, draws = np.repeat(np.arange(3), sizes), 2_000, 300
    rng = np.random.default_rng(2)
    ours, usual = np.zeros((draws, 3)), np.zeros((draws, 3))
    for draw in range(draws):
        ours[draw] = draw_group_counts(rng, sizes, weights, count)
        keys = rng.standard_exponential(len(items)) / weights[items]
        usual[draw] = np.bincount(items[np.argpartition(keys, count)[:count]], minlength=3)
    for group in range(3):
        # Welch's test of the means; the rare class is drawn whole nearly always (20 * (1 - exp(-0.1 * 147.7)) = 20).
        if usual[:, group].std() + ours[:, group].std() == 0:
            assert (usual[:, group] == ours[:, group]).all()
        else:
            assert stats.ttest_ind(ours[:, group], usual[:, group], equal_var=False).pvalue > 0.001
    assert ours[:, 1].mean() > 19.9


def test_a_class_a_thousand_times_rarer_is_drawn_as_the_formula_says():
    """Few draws of very many: chances are in proportion to W, so 1 : 147.7 / 1000 of the two classes."""
    sizes = np.array([1_000_000, 1_000])
    weights = balance_weights(sizes)
    rng = np.random.default_rng(3)
    drawn = sum(draw_group_counts(rng, sizes, weights, 50) for _ in range(2_000))
    share = sizes * weights / (sizes * weights).sum()
    assert stats.chisquare(drawn, share * drawn.sum()).pvalue > 0.001


def test_all_come_when_there_are_no_more():
    rng = np.random.default_rng(4)
    np.testing.assert_array_equal(draw_group_counts(rng, [5, 3, 2], [1, 2, 0], 100), [5, 3, 0])
    np.testing.assert_array_equal(draw_group_counts(rng, [5, 3], [1, 2], 8), [5, 3])
    np.testing.assert_array_equal(draw_group_counts(rng, [0, 0], [1, 2], 8), [0, 0])
    np.testing.assert_array_equal(draw_group_counts(rng, [5, 3], [1, 2], 0), [0, 0])


def test_as_many_come_as_are_wanted():
    rng = np.random.default_rng(5)
    for count in (1, 2, 17, 499, 999, 1000):
        counts = draw_group_counts(rng, [10, 900, 90], [1000, 1e-3, 0.3], count)
        assert counts.sum() == count and (counts <= [10, 900, 90]).all()
