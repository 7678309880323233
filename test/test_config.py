"""Configuration classes: built from data, checked, and told apart from what they are not."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import pytest

from renderocc_model.base.config import (
    apply_overrides,
    configuration,
    from_mapping,
    load_config,
    load_yaml,
    setting,
    settings_of,
    to_mapping,
)
from renderocc_model.base.plain_yaml import MAX_YAML_BYTES


@configuration
class Lamp:
    power: float = setting(0.5, "share of full power", minimum=0.0, maximum=1.0)
    colour: str = setting("white", "colour of the light", choices=("white", "red", "green"))


@configuration
class Room:
    doors: int = setting(1, "number of doors", minimum=1, maximum=9)
    name: str = setting("hall", "what it is called")
    heated: bool = setting(False, "whether it is warm")
    size: tuple[float, float] = setting((4.0, 5.0), "length and width, metres", minimum=0.1)
    tags: tuple[str, ...] = setting((), "words about it")
    owner: str | None = setting(None, "who lives there")
    limit: int | None = setting(None, "most people at once", minimum=1)
    lamp: Lamp = setting(Lamp(power=0.25), "its lamp")

    def check(self) -> None:
        if self.doors > len(self.name):
            raise ValueError(f"doors is {self.doors}, more than the letters of {self.name!r}; use fewer doors")


@dataclass(frozen=True)
class Parcel:
    """A plain dataclass, as other modules declare theirs."""

    weight: float
    label: str = "none"

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight}; expected more than zero")


def test_a_mapping_gives_what_it_says_and_the_rest_keeps_its_default():
    room = from_mapping(Room, {"doors": 2, "size": [3, 2.5], "tags": ["a", "b"], "lamp": {"colour": "red"}})
    # The lamp's power comes from the room's default lamp (0.25), not from the lamp's own default (0.5).
    assert room == Room(doors=2, size=(3.0, 2.5), tags=("a", "b"), lamp=Lamp(power=0.25, colour="red"))
    assert isinstance(room.size[0], float)


def test_plain_data_and_back_is_the_same():
    room = Room(doors=3, tags=("x",), owner="me", limit=4)
    assert from_mapping(Room, to_mapping(room)) == room
    assert to_mapping(room)["lamp"] == {"power": 0.25, "colour": "white"}


def test_values_left_out_come_from_the_base_where_one_is_given():
    base = Room(doors=4, lamp=Lamp(colour="green"))
    assert from_mapping(Room, {"lamp": {"power": 1.0}}, base=base) == Room(doors=4, lamp=Lamp(1.0, "green"))


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"dors": 2}, ["room.yaml", "'dors'", "did you mean 'doors'", "doors, name, heated"]),
        ({"lamp": {"colr": "red"}}, ["'lamp.colr'", "did you mean 'lamp.colour'"]),
        ({"doors": 2.0}, ["'doors' is 2.0 (float)", "a whole number from 1 to 9", "number of doors"]),
        ({"doors": True}, ["'doors' is True (bool)", "a whole number"]),
        ({"doors": 0}, ["'doors' is 0", "from 1 to 9"]),
        ({"heated": 1}, ["'heated' is 1 (int)", "true or false"]),
        ({"name": 5}, ["'name' is 5", "text"]),
        ({"size": [1]}, ["'size' has 1 entries", "2 entries"]),
        ({"size": 3}, ["'size' is 3", "a list"]),
        ({"size": [1, 0]}, ["'size[1]' is 0", "at least 0.1"]),
        ({"tags": "ab"}, ["'tags' is 'ab'", "a list"]),
        ({"tags": ["a", 1]}, ["'tags[1]' is 1"]),
        ({"limit": 0}, ["'limit' is 0", "at least 1"]),
        ({"lamp": 3}, ["'lamp' is 3", "Lamp"]),
        ({"lamp": {"power": float("nan")}}, ["'lamp.power' is nan", "a finite number"]),
        ({"lamp": {"power": float("inf")}}, ["'lamp.power' is inf"]),
        ({"lamp": {"colour": "gren"}}, ["'lamp.colour' is 'gren'", "did you mean 'green'"]),
        ({"doors": 5}, ["doors is 5, more than the letters of 'hall'"]),
    ],
)
def test_a_wrong_entry_is_named_with_its_place_and_the_remedy(mapping, words):
    with pytest.raises(ValueError) as error:
        from_mapping(Room, mapping, "room.yaml")
    assert all(word in str(error.value) for word in ["room.yaml: ", *words]), str(error.value)


def test_code_is_checked_like_files():
    with pytest.raises(ValueError, match=r"Room: 'doors' is 12 \(int\)"):
        Room(doors=12)
    with pytest.raises(FrozenInstanceError):
        Room().doors = 2


def test_plain_dataclasses_are_built_too_and_their_own_refusals_keep_the_place():
    assert from_mapping(Parcel, {"weight": 2}) == Parcel(2.0)
    with pytest.raises(ValueError, match="post.yaml: 'weight' is missing"):
        from_mapping(Parcel, {}, "post.yaml")
    with pytest.raises(ValueError, match="post.yaml: weight is -1"):
        from_mapping(Parcel, {"weight": -1}, "post.yaml")


def test_words_override_and_are_checked_together():
    room = apply_overrides(
        Room(), ["doors=6", "name=cellar", "lamp.power=1e-1", "size=[1, 2]", "limit=3", "heated=true", "owner=7"]
    )
    # Six doors alone would be refused, as 'hall' has four letters.
    assert room == Room(doors=6, name="cellar", lamp=Lamp(0.1), size=(1.0, 2.0), limit=3, heated=True, owner="7")
    assert apply_overrides(room, ["limit=null", "owner=null"]) == Room(
        doors=6, name="cellar", lamp=Lamp(0.1), size=(1.0, 2.0), heated=True
    )
    assert apply_overrides(Room(), ["name=123456=x"]).name == "123456=x"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("doors", "expected name=value"),
        ("=3", "expected name=value"),
        ("dors=3", "did you mean 'doors'"),
        ("lamp.pwer=1", "did you mean 'lamp.power'"),
        ("doors.x=3", "'doors' is a single value"),
        ("lamp=3", "'lamp' is 3"),
        ("doors=[", "not readable YAML"),
        ("doors=many", "'doors' is 'many'"),
    ],
)
def test_a_wrong_word_is_refused(word, reason):
    with pytest.raises(ValueError, match="override") as error:
        apply_overrides(Room(), [word])
    assert reason in str(error.value)


def test_settings_list_the_leaves_with_what_parameters_need():
    leaves = {leaf.name: leaf for leaf in settings_of(Room)}
    assert list(leaves)[0] == "doors" and list(leaves)[-1] == "lamp.colour"
    assert (leaves["doors"].minimum, leaves["doors"].maximum, leaves["doors"].default) == (1, 9, 1)
    assert leaves["lamp.power"].default == 0.25 and leaves["lamp.power"].help == "share of full power"
    assert leaves["lamp.colour"].choices == ("white", "red", "green")
    assert {leaf.name: leaf.default for leaf in settings_of(Room(doors=3))}["doors"] == 3


def test_a_file_is_read_and_its_exponents_are_numbers(tmp_path):
    path = tmp_path / "room.yaml"
    path.write_text("doors: 2  # two\nlamp: {power: 1e-1}\n")
    assert load_config(Room, path, ["doors=3"]) == Room(doors=3, lamp=Lamp(0.1))
    path.write_text("")
    assert load_yaml(path) == {}


BOMB = b"a0: &a0 %(open)s\n" + b"".join(
    f"a{n}: &a{n} %(begin)s".encode() + b", ".join([f"*a{n - 1}".encode()] * 9) + b"%(end)s\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"doors: 1\ndoors: 2\n", "given twice"),
        (b"lamp: {power: 1, power: 0}\n", "given twice"),
        (b"doors: [1, 2\n", "not readable YAML"),
        (b"- 1\n", "holds a list"),
        (b"\xff\xfe\xfa", "not readable YAML"),
        (b"? [1]\n: 2\n", "a key must be a plain word"),
        (b"x: !!python/object/apply:os.system ['true']\n", "not readable YAML"),
        (b"x: " + b"[" * 20_000, "nested too deeply"),
        (b"#" * (MAX_YAML_BYTES + 1), "larger than"),
        # Nine copies of nine copies ...: 9^9 values. By merging, they would be made; by listing, they would be printed.
        (BOMB % {b"open": b"[x, x, x]", b"begin": b"[", b"end": b"]"}, "more than 500000 values"),
        (BOMB % {b"open": b"{x: 1}", b"begin": b"{<<: [", b"end": b"]}"}, "more than 500000 values"),
        (b"x: &x [*x]\n", "an alias stands for what it is in"),
        (b"x: 2026-13-45\n", "month must be in 1..12"),
        (b"x: " + b"9" * 5000 + b"\n", "not readable YAML"),
    ],
    ids=lambda value: repr(value[:24]),  # some are megabytes
)
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_yaml(path)
    assert str(path) in str(error.value) and reason in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match="nowhere.yaml: cannot be read"):
        load_yaml("nowhere.yaml")


def test_an_error_does_not_print_pages():
    with pytest.raises(ValueError) as error:
        from_mapping(Room, {"name": ["x" * 1000] * 1000})
    assert len(str(error.value)) < 500
