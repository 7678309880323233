"""The faults of the node, and the campaign that injects them (`make faults`).

fault.py            what a fault is, and what the node has promised to say of it
cameras.py          faults of images and calibrations
times.py            faults of stamps and clocks
transforms.py       faults of TF
interfaces.py       faults of subscribers, parameters, services and lifecycle
processes.py        signals, and limits of memory and files
files.py            faults of what ~/save writes, and of the checkpoint
catalogue.py        all of them, and which a campaign injects when, from a seed
lane.py             one node at a time: inject, wait, end, judge
judge.py            the invariants
report.py           the campaign's table and figures, and whether the node's processes grow
exhausted.py        the node with a device whose memory runs out
slow_subscriber.py  a subscriber that cannot keep up
"""
