"""Faults of the commands: each command in a process of its own (`make command-faults`).

subjects.py    the commands under test, what they are given, what they write
material.py    a recording of a tiny town and all that is made of it, by the commands themselves
injections.py  signals, a full or locked disk, no memory, damaged inputs
disk.py        a disk that can be filled up and locked
process.py     a command in its own process: what it says, how it ends, what it leaves running
campaign.py    one run after the other, or a few at a time
verdict.py     whether a command met a fault as it should
report.py      the table
"""
