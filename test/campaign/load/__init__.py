"""More and larger images, until the node's newest result is too old (`make load`).

source.py   cameras that send as fast as they are told to, in a process of their own
measure.py  one size, transport and rate: what went in, what came out, how old it was
table.py    the table, as JSON and section of a document
"""
