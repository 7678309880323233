"""Campaigns: the real node and the real commands, hurt on purpose and measured from outside. Not installed.

    make faults          faults/    cameras, clocks, TF, signals and files go wrong; the node's promises are judged
    make soak            soak/      the node under random faults for a long time: memory, queues and latency over time
    make load            load/      which rates and sizes of images the node keeps up with
    make command-faults  commands/  every command stopped, starved of disk and memory, and fed damaged inputs

stage.py      the node in its own process, the cameras, and the observer, on a ROS domain of their own
recordings.py the scenes: the first frames of a recording, or of a street of the simulated town
player.py     the cameras: publishes a scene at a steady rate, through the faults that are on
observer.py   what an ordinary subscriber sees of the node
map_judge.py what of the node's map can have been seen, from what was sent
seen.py       which cells and voxels a camera can have seen, by plain geometry
options.py    what the commands have in common: options of the stage, and how a command ends
json_lines.py results as they come, one JSON object a line
output.py     what is written in the end: tables, figures, sections of a document, and what made them
"""
