"""The latest-wins slot between two threads."""

from __future__ import annotations

import threading
import time

import pytest

from renderocc_ros.input.mailbox import Mailbox


def test_the_newest_item_wins_and_the_replaced_one_is_handed_back():
    mailbox: Mailbox[str] = Mailbox()
    assert mailbox.put("a") is None
    assert mailbox.put("b") == "a"
    assert mailbox.put("c") == "b"
    assert mailbox.take(0) == "c"
    assert mailbox.take(0) is None


def test_none_is_no_item():
    with pytest.raises(ValueError, match="None cannot be put"):
        Mailbox().put(None)


def test_items_that_are_false_are_items():
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put(0)
    assert mailbox.put(0) == 0
    assert mailbox.take(0) == 0


def test_taking_waits_for_an_item_and_no_longer_than_asked():
    mailbox: Mailbox[str] = Mailbox()
    begin = time.monotonic()
    assert mailbox.take(0.02) is None
    assert time.monotonic() - begin >= 0.02
    threading.Timer(0.02, mailbox.put, ["late"]).start()
    assert mailbox.take(20) == "late"


def test_closing_wakes_who_waits_and_empties_the_slot():
    mailbox: Mailbox[str] = Mailbox()
    threading.Timer(0.02, mailbox.close).start()
    assert mailbox.take(None) is None
    assert mailbox.put("after the end") == "after the end"
    assert mailbox.take(0) is None
    other: Mailbox[str] = Mailbox()
    other.put("x")
    assert other.close() == "x" and other.take() is None


def test_a_closed_mailbox_can_be_opened_again_and_is_empty_then():
    mailbox: Mailbox[str] = Mailbox()
    mailbox.put("before")
    mailbox.close()
    mailbox.open()
    assert mailbox.take(0) is None and mailbox.put("after") is None and mailbox.take(0) == "after"


def test_clearing_gives_back_what_was_there():
    mailbox: Mailbox[str] = Mailbox()
    assert mailbox.clear() is None
    mailbox.put("x")
    assert mailbox.clear() == "x" and mailbox.take(0) is None


def test_every_item_is_taken_or_handed_back_exactly_once():
    mailbox: Mailbox[int] = Mailbox()
    taken, replaced = [], []

    def consume():
        while (item := mailbox.take(20)) is not None:
            taken.append(item)

    consumer = threading.Thread(target=consume)
    consumer.start()
    for item in range(5000):
        before = mailbox.put(item)
        if before is not None:
            replaced.append(before)
    while len(taken) + len(replaced) < 5000:
        time.sleep(0.001)
    mailbox.close()
    consumer.join()
    assert sorted(taken + replaced) == list(range(5000))
    assert taken == sorted(taken) and taken[-1] == 4999
