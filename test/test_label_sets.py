"""Mappings of public label sets: every id is named once, with its own name, and has a class."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, SEMANTIC_KITTI, UNLABELLED
from training.label.mapping import LABEL_SETS, LabelError, load_mapping, mapping_names
from training.recordings.raw_classes import NO_SURFACE

# Number of ids, and the beginning of SHA-256 of the names as published, in the order of ids, one a line. The names were
# taken from MMSegmentation 1.2.2; its "Lane Marking (only) - Test" is "Text" in Mapillary's own list.
PUBLISHED = {
    "cityscapes": (19, "5995d02d6c574d51"),
    "mapillary_vistas_65": (66, "db6109de55a9d835"),
    "mapillary_vistas_124": (124, "569f2ee8c65feff2"),
    "ade20k": (150, "f9dbd8a75a0722c9"),
    "coco_stuff_171": (171, "8ea44449837dceb3"),
}
GROUND, OBSTACLE = 0, 1


def names_of(mapping):
    return [mapping.names[index] for index in sorted(mapping.names)]


@pytest.mark.parametrize("classes", [OCC3D_NUSCENES, GROUND_OBSTACLE], ids=["occ3d", "ground"])
@pytest.mark.parametrize("name", LABEL_SETS)
def test_every_id_of_a_label_set_has_a_name_and_a_class(name, classes):
    mapping = load_mapping(name, classes)
    count = {**{key: value[0] for key, value in PUBLISHED.items()}, "coco_stuff_182": 182}[name]
    assert sorted(mapping.ids) == sorted(mapping.names) == list(range(count))
    assert len(set(mapping.names.values())) == count
    assert mapping.others is None and mapping.classes == classes
    allowed = {*classes.occupied_ids, UNLABELLED, NO_SURFACE}
    assert set(mapping.ids.values()) <= allowed
    with pytest.raises(LabelError, match=f"ids {count} .1x. are not in the label set {name}"):
        mapping.of_ids(np.array([count]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_names_are_those_that_were_published(name):
    names = "\n".join(names_of(load_mapping(name))).replace("(only) - Text", "(only) - Test")
    assert hashlib.sha256(names.encode()).hexdigest().startswith(PUBLISHED[name][1])


def test_cityscapes_train_ids_are_those_of_torchvision():
    from torchvision.datasets import Cityscapes

    wanted = {entry.train_id: entry.name for entry in Cityscapes.classes if 0 <= entry.train_id < 255}
    assert load_mapping("cityscapes").names == wanted


def test_the_things_of_coco_stuff_are_those_of_torchvision():
    """Its ids are those of COCO, less one; ids that COCO does not use have names in COCO-Stuff alone."""
    from torchvision.models._meta import _COCO_CATEGORIES as coco

    names = load_mapping("coco_stuff_182").names
    assert [names[index] for index in range(90) if coco[index + 1] != "N/A"] == [n for n in coco[1:] if n != "N/A"]


def test_the_two_coco_stuff_mappings_agree():
    shorter, longer = load_mapping("coco_stuff_171"), load_mapping("coco_stuff_182")
    by_name = {longer.names[index]: longer.ids[index] for index in longer.names}
    assert {shorter.names[index]: shorter.ids[index] for index in shorter.names}.items() <= by_name.items()
    kept = [name for name in names_of(longer) if name in names_of(shorter)]
    assert kept == names_of(shorter)


@pytest.mark.parametrize(
    "name, source, occ3d, two",
    [
        ("cityscapes", "road", "driveable_surface", GROUND),
        ("cityscapes", "rider", "bicycle", OBSTACLE),
        ("cityscapes", "sky", NO_SURFACE, NO_SURFACE),
        ("mapillary_vistas_65", "Curb", "sidewalk", GROUND),
        ("mapillary_vistas_65", "Ego Vehicle", NO_SURFACE, NO_SURFACE),
        ("mapillary_vistas_65", "Unlabeled", UNLABELLED, UNLABELLED),
        ("mapillary_vistas_124", "Lane Marking - Symbol (Bicycle)", "driveable_surface", GROUND),
        ("mapillary_vistas_124", "Traffic Cone", "traffic_cone", OBSTACLE),
        ("ade20k", "van", "car", OBSTACLE),
        ("ade20k", "grass", "terrain", GROUND),
        ("coco_stuff_171", "pavement", "sidewalk", GROUND),
        ("coco_stuff_182", "street sign", "manmade", OBSTACLE),
    ],
)
def test_classes_are_mapped_to_what_they_are(name, source, occ3d, two):
    for classes, wanted in ((OCC3D_NUSCENES, occ3d), (GROUND_OBSTACLE, two)):
        mapping = load_mapping(name, classes)
        index = next(index for index, each in mapping.names.items() if each == source)
        assert mapping.ids[index] == (classes.id_of(wanted) if isinstance(wanted, str) else wanted)


@pytest.mark.parametrize("name", LABEL_SETS)
def test_water_is_flat_but_no_ground_to_drive_on(name):
    flat, two = load_mapping(name), load_mapping(name, GROUND_OBSTACLE)
    words = ("water", "sea", "river", "lake", "water-other")
    for index, each in flat.names.items():
        if each.lower() in words:
            assert flat.ids[index] == OCC3D_NUSCENES.id_of("other_flat") and two.ids[index] == OBSTACLE


@pytest.mark.parametrize("name", mapping_names())
def test_every_built_in_mapping_also_maps_to_ground_and_obstacle(name):
    mapping, two = load_mapping(name), load_mapping(name, GROUND_OBSTACLE)
    ground = {"driveable_surface", "other_flat", "sidewalk", "terrain", "road", "parking", "other-ground"}
    for index, target in mapping.ids.items():
        if target >= NO_SURFACE:
            assert two.ids[index] == target
        elif target == mapping.classes.free:
            assert two.ids[index] == GROUND_OBSTACLE.free
        elif two.ids[index] == GROUND:
            assert mapping.classes.names[target] in ground
        else:
            assert two.ids[index] == OBSTACLE


def test_a_mapping_to_another_table_is_refused():
    with pytest.raises(
        LabelError, match="cityscapes: classes: there is no class 'driveable_surface'; the table has unl"
    ):
        load_mapping("cityscapes", SEMANTIC_KITTI)
    with pytest.raises(LabelError, match="'occ3d_nuscenes' is for another class table"):
        load_mapping("occ3d_nuscenes", SEMANTIC_KITTI)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("ids: {7 road: terrain, 7 path: sidewalk}", "ids: id 7 is listed twice; list each once"),
        ("ids: {road: terrain}", "id 'road': expected a whole number from 0 to 65535, and perhaps a name"),
        ("ids: {1.5: terrain}", "id 1.5: expected a whole number"),
        ("ids: {-1 road: terrain}", "id '-1 road': expected a whole number"),
        ("ids: {1: terrain}\nground_obstacle: {2: ground}", "ground_obstacle lists id 2, which ids does not list"),
        (
            "ids: {1: terrain}\nground_obstacle: {1: terrain}",
            "no class 'terrain'; the table has ground, obstacle, free",
        ),
    ],
)
def test_what_is_wrong_in_a_mapping_file_is_named(tmp_path, text, fault):
    file = Path(tmp_path) / "mapping.yaml"
    file.write_text(f"classes: occ3d_nuscenes\n{text}\n")
    with pytest.raises(LabelError, match=fault) as caught:
        load_mapping(file)
    assert str(file) in str(caught.value)


def test_a_file_is_converted_with_its_own_corrections(tmp_path):
    file = Path(tmp_path) / "mapping.yaml"
    file.write_text(
        "classes: occ3d_nuscenes\nids: {1 road: driveable_surface, 2 pond: other_flat, 3 sky: no surface}\n"
        'colours: {"#010203": car}\nothers: unlabelled\nground_obstacle: {2 pond: obstacle}\n'
    )
    mapping = load_mapping(file, GROUND_OBSTACLE)
    assert mapping.of_ids(np.array([1, 2, 3, 9])).tolist() == [GROUND, OBSTACLE, NO_SURFACE, UNLABELLED]
    assert mapping.of_colours(np.array([[[1, 2, 3], [0, 0, 0]]], np.uint8)).tolist() == [[OBSTACLE, UNLABELLED]]
    assert mapping.names == {1: "road", 2: "pond", 3: "sky"}


def test_a_file_without_a_table_is_read_with_the_wanted_one(tmp_path):
    file = Path(tmp_path) / "mapping.yaml"
    file.write_text("ids: {5: ground, 6: obstacle}\n")
    assert load_mapping(file, GROUND_OBSTACLE).ids == {5: GROUND, 6: OBSTACLE}
