"""The node on six cameras under random faults for a long time (`make soak`).

run.py         faults at random moments, and a thread that looks every second
samples.py     what it looks at, and how that is kept
statistics.py  how the figures change with time, and how surely
plot.py        curves over time as an image
document.py    the summary, as JSON, image and section of a document
"""
