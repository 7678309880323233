"""ThrottledLog: said at once, then once a period with the number of repeats."""

from renderocc_ros.health.throttled_log import MOST_KEPT, MOST_LINES, ThrottledLog


def test_a_fault_is_said_at_once_then_once_a_period_with_its_repeats():
    said = []
    log = ThrottledLog(said.append, period=10.0)
    for now in range(25):  # once a second
        log.report("camera 'front'", "image", "corrupt", float(now))
    # said at 0; at 10, after 9 unsaid ones (1..9); at 20, after 9 more (11..19)
    assert said == [
        "camera 'front': corrupt",
        "camera 'front': corrupt (9 more times in 10 s)",
        "camera 'front': corrupt (9 more times in 10 s)",
    ]


def test_different_subjects_and_kinds_do_not_silence_each_other():
    said = []
    log = ThrottledLog(said.append)
    log.report("camera 'front'", "image", "corrupt", 0.0)
    log.report("camera 'back'", "image", "corrupt", 0.0)
    log.report("camera 'front'", "stamp", "zero", 0.0)
    assert len(said) == 3


def test_other_numbers_are_a_repeat_and_other_words_are_not():
    said = []
    log = ThrottledLog(said.append)
    log.report("camera 'front'", "image", "0.31 s late", 0.0)
    log.report("camera 'front'", "image", "12.5 s late", 1.0)
    log.report("camera 'front'", "image", "too small", 2.0)
    log.report("camera 'front'", "image", "is 800x600", 3.0)
    log.report("camera 'front'", "image", "is 640x600", 4.0)
    assert [line.split(": ")[1] for line in said] == ["0.31 s late", "too small", "is 800x600", "is 640x600"]


def test_what_is_kept_is_bounded():
    log = ThrottledLog(lambda text: None)
    for index in range(1000):
        log.report("camera", "image", "x" * index, float(index))
    assert len(log.current(now=1000.0, within=2000.0)) == MOST_KEPT


def test_current_faults_are_those_seen_lately():
    log = ThrottledLog(lambda text: None)
    log.report("a", "x", "first", 0.0)
    log.report("b", "x", "second", 5.0)
    assert [(subject, c.text, c.count) for subject, _, c in log.current(now=6.0, within=3.0)] == [("b", "second", 1)]
    assert [subject for subject, _, _ in log.current(now=6.0, within=10.0)] == ["b", "a"]


def test_a_resolved_fault_is_said_again_when_it_returns():
    said = []
    log = ThrottledLog(said.append)
    log.report("a", "x", "broken", 0.0)
    assert log.resolve("a", "x")
    assert not log.resolve("a", "x")
    log.report("a", "x", "broken", 1.0)
    assert said == ["a: broken", "a: broken"]


def test_after_a_clear_everything_is_new():
    said = []
    log = ThrottledLog(said.append)
    log.report("a", "x", "broken", 0.0)
    log.clear()
    assert log.current(now=0.0, within=10.0) == []
    log.report("a", "x", "broken", 0.1)
    assert said == ["a: broken", "a: broken"]


def test_made_up_faults_without_end_fill_neither_memory_nor_the_log():
    said = []
    log = ThrottledLog(said.append, period=10.0)
    for index in range(5000):  # letters, so that each is another: numbers would be repeats
        name = "".join("abcdefghij"[int(digit)] for digit in str(index))
        log.report("TF", name, f"transform from '{name}' ignored", index * 0.001)
    assert len(said) == MOST_LINES  # 5 s are less than a period
    assert said[-1] == "50 lines in 10 s: others are not written until that is over; see /diagnostics"
    assert len(log.current(now=5.0, within=10.0)) == MOST_KEPT
    log.report("camera 'front'", "image", "corrupt", 15.0)
    assert said[-1] == "camera 'front': corrupt"


def test_a_fault_that_was_not_written_is_written_when_there_is_room_with_its_repeats():
    said = []
    log = ThrottledLog(said.append, period=10.0)
    for index in range(MOST_LINES):
        log.report("TF", "abcdefghij"[index // 10] + "abcdefghij"[index % 10], "ignored", 0.0)
    log.report("camera 'front'", "image", "corrupt", 1.0)
    log.report("camera 'front'", "image", "corrupt", 2.0)
    assert len(said) == MOST_LINES
    log.report("camera 'front'", "image", "corrupt", 11.0)
    assert said[-1] == "camera 'front': corrupt (2 more times)"


def test_a_name_from_the_network_makes_no_line_of_its_own_and_steers_no_terminal():
    said = []
    log = ThrottledLog(said.append)
    log.report("TF", "x", "frame 'a\n[ERROR] [renderocc]: brakes failed\x1b[2J\u202e' is too old", 0.0)
    assert said == [r"TF: frame 'a\n[ERROR] [renderocc]: brakes failed\x1b[2J\u202e' is too old"]


def test_a_text_as_long_as_a_book_is_cut_and_its_length_told():
    said = []
    ThrottledLog(said.append).report("TF", "x", "y" * 1_000_000, 0.0)
    assert said == [f"TF: {'y' * 500}... (1000000 characters)"]
