"""Random subsets: every one is as likely, and none has an item twice."""

import numpy as np
import pytest
from scipy import stats

from training.data.prepare.subset import choose


@pytest.mark.parametrize(("size", "count"), [(6, 3), (50, 3)])
def test_every_item_is_chosen_as_often(size, count):
    """Both ways of `choose`: a permutation for many, repeated draws for few."""
    rng = np.random.default_rng(6)
    picks = [choose(rng, size, count) for _ in range(6_000)]
    assert all(len(set(pick.tolist())) == count for pick in picks)
    assert stats.chisquare(np.bincount(np.concatenate(picks), minlength=size)).pvalue > 0.001
    pairs = np.array([[pick.min(), pick.max()] for pick in picks])
    assert pairs.min() == 0 and pairs.max() == size - 1


def test_more_than_there_are_cannot_be_chosen():
    with pytest.raises(ValueError, match="5 of 4"):
        choose(np.random.default_rng(0), 4, 5)
