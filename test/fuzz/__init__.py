"""Fuzzing of everything that reads bytes from outside. `make fuzz` runs it; `python -m fuzz --help` in test/ says more.

target.py      what a target is, and how one input is judged
messages.py    targets: ROS messages as CDR, camera_info, transforms, raw and compressed images
files.py       targets: YAML, rigs, checkpoints, exported files, volumes
recordings.py  targets: bags, notes, prepared tables and journals, labels, other people's datasets
mutate.py      how inputs are changed: bytes, numbers in text, JSON trees, and the checksums mended afterwards
child.py       one target in a process of its own, under a memory limit, with libFuzzer (atheris) where it is there
lines.py       which lines of the parsers the kept inputs reach
__main__.py    the command: every target in turn, counts that add up over runs, a report in JSON
"""
