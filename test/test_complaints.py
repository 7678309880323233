"""Complaints: said at once, then once a period with the number of repeats."""

from renderocc_ros.complaints import MOST_KEPT, Complaints


def test_a_complaint_is_said_at_once_then_once_a_period_with_its_repeats():
    said = []
    complaints = Complaints(said.append, period=10.0)
    for now in range(25):  # once a second
        complaints.report("camera 'front'", "image", "corrupt", float(now))
    # said at 0; at 10, after 9 unsaid ones (1..9); at 20, after 9 more (11..19)
    assert said == [
        "camera 'front': corrupt",
        "camera 'front': corrupt (9 more times in 10 s)",
        "camera 'front': corrupt (9 more times in 10 s)",
    ]


def test_different_subjects_and_kinds_do_not_silence_each_other():
    said = []
    complaints = Complaints(said.append)
    complaints.report("camera 'front'", "image", "corrupt", 0.0)
    complaints.report("camera 'back'", "image", "corrupt", 0.0)
    complaints.report("camera 'front'", "stamp", "zero", 0.0)
    assert len(said) == 3


def test_other_numbers_are_a_repeat_and_other_words_are_not():
    said = []
    complaints = Complaints(said.append)
    complaints.report("camera 'front'", "image", "0.31 s late", 0.0)
    complaints.report("camera 'front'", "image", "12.5 s late", 1.0)
    complaints.report("camera 'front'", "image", "too small", 2.0)
    complaints.report("camera 'front'", "image", "is 800x600", 3.0)
    complaints.report("camera 'front'", "image", "is 640x600", 4.0)
    assert [line.split(": ")[1] for line in said] == ["0.31 s late", "too small", "is 800x600", "is 640x600"]


def test_what_is_kept_is_bounded():
    complaints = Complaints(lambda text: None)
    for index in range(1000):
        complaints.report("camera", "image", "x" * index, float(index))
    assert len(complaints.current(now=1000.0, within=2000.0)) == MOST_KEPT


def test_current_complaints_are_those_seen_lately():
    complaints = Complaints(lambda text: None)
    complaints.report("a", "x", "first", 0.0)
    complaints.report("b", "x", "second", 5.0)
    assert [(subject, c.text, c.count) for subject, _, c in complaints.current(now=6.0, within=3.0)] == [
        ("b", "second", 1)
    ]
    assert [subject for subject, _, _ in complaints.current(now=6.0, within=10.0)] == ["b", "a"]


def test_a_resolved_complaint_is_said_again_when_it_returns():
    said = []
    complaints = Complaints(said.append)
    complaints.report("a", "x", "broken", 0.0)
    assert complaints.resolve("a", "x")
    assert not complaints.resolve("a", "x")
    complaints.report("a", "x", "broken", 1.0)
    assert said == ["a: broken", "a: broken"]


def test_after_a_clear_everything_is_new():
    said = []
    complaints = Complaints(said.append)
    complaints.report("a", "x", "broken", 0.0)
    complaints.clear()
    assert complaints.current(now=0.0, within=10.0) == []
    complaints.report("a", "x", "broken", 0.1)
    assert said == ["a: broken", "a: broken"]
