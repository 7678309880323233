"""Arguments made from a configuration class: the same names, defaults, checks and help, written once."""

import argparse

import pytest

from renderocc_model.base.config import configuration, setting
from renderocc_model.base.config_arguments import add_arguments, from_arguments


@configuration
class Lamp:
    """Settings of every kind."""

    colour: str = setting("", "colour of the light", choices=("", "white", "red"))
    rooms: tuple[str, ...] = setting((), "rooms to light")
    brightness: float = setting(50.0, "share of full power in %", minimum=0.0, maximum=100.0)
    blink_count: int = setting(3, "times to blink", minimum=0)
    keep_on: bool = setting(False, "stay lit afterwards")


def parsed(*words: str) -> Lamp:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Lamp)
    return from_arguments(parser.parse_args(words), Lamp)


def test_no_words_give_the_defaults_of_the_class():
    assert parsed() == Lamp()


def test_each_setting_has_an_option_of_its_name_and_type():
    words = "--colour red --rooms hall attic --brightness 20 --blink-count 7 --keep-on".split()
    assert parsed(*words) == Lamp("red", ("hall", "attic"), 20.0, 7, True)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--colour", "blue"], "argument --colour: invalid choice: 'blue'"),
        (["--blink-count", "2.5"], "argument --blink-count: invalid int value: '2.5'"),
    ],
)
def test_a_word_of_the_wrong_kind_names_the_option(words, reason, capsys):
    with pytest.raises(SystemExit):
        parsed(*words)
    assert reason in capsys.readouterr().err


def test_a_value_out_of_range_is_refused_by_the_class():
    with pytest.raises(ValueError, match="'brightness' is 200.0 .*expected a finite number from 0 to 100"):
        parsed("--brightness", "200")


def test_help_is_that_of_the_settings_with_defaults_that_say_something():
    parser = argparse.ArgumentParser()
    add_arguments(parser, Lamp)
    text = " ".join(parser.format_help().split())
    assert "--colour {white,red} colour of the light" in text
    assert "--rooms NAME [NAME ...] rooms to light" in text
    assert "--brightness X share of full power in % (default 50.0)" in text
    assert "--blink-count N times to blink (default 3)" in text and "stay lit afterwards (default" not in text
