"""From recordings to trained networks, and how good they are. Imports renderocc_model, never renderocc_ros.

In the order in which a recording passes through:

- simulate/, importers/: recordings with labels and truth, of the simulated town and of published datasets.
- recordings/: reading recordings as frames, writing new ones.
- label/, check/: 2D labels for a recording; what in it would make training fail.
- prepare/: recordings to memory-mapped tables of labelled pixels.
- data/: samples and batches from the tables, each a function of (seed, epoch, index).
- supervision/: what labels say of a field: losses, rays, points on rays, 3D labels.
- train/: a run, from its settings to its checkpoints.
- evaluate/, study/: metrics, thresholds, baselines; the paper's comparisons.
"""
