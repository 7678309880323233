"""`renderocc bench epipolar`: that the ways it compares give the same results, and that it reports them."""

import pytest
import torch

from renderocc_model.bench import epipolar as bench

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread_and_size(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(bench, "SIZES", ("tiny",))
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("way", bench.WAYS)
def test_all_ways_give_the_same(way):
    (figures,) = bench.measure_all(way, 1)  # compares with the reference
    assert figures["shape"] == [64, 16, 44] and 0 < figures["forward"] < figures["both"]


def test_places_of_the_scene_are_seen_by_several_earlier_images():
    queries, keys, pixels, depths = bench.make_case("tiny")
    alone = bench.draw("ours", queries, keys[:, :1], pixels[:, :1], depths)[:, -1].mean()
    together = bench.draw("ours", queries, keys, pixels, depths)[:, -1].mean()
    assert 0.2 < alone < together - 0.05


def test_ways_that_do_not_agree_are_no_figures():
    case = bench.make_case("tiny")
    upstream = torch.zeros(len(case[0]), bench.GROUPS + 1, len(case[3]), *case[0].shape[2:])
    wrong = (torch.zeros_like(upstream), torch.zeros_like(case[0]), torch.zeros_like(case[1]))
    with pytest.raises(RuntimeError, match="ours and reference differ by .* in result"):
        bench.compare("ours", case, upstream, wrong)


def test_the_table_shows_times_memory_and_ratios(monkeypatch):
    seconds = {"textbook": 0.06, "reference": 0.02, "ours": 0.01}
    monkeypatch.setattr(
        bench,
        "run",
        lambda way, threads, frames: [
            {"shape": [64, 16, 44], "forward": seconds[way], "both": 2 * seconds[way], "memory": 2**20}
        ],
    )
    _, lines = bench.bench_epipolar(1)
    assert "| tiny | 64 x 16 x 44 | forward | 60 ms | 20 ms | 10 ms | 6.0 | 2.0 |" in lines
    assert "| tiny | 64 x 16 x 44 | peak memory | 1 MiB | 1 MiB | 1 MiB | 1.0 | 1.0 |" in lines
