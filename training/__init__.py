"""From recordings to trained networks, and how good they are. Imports renderocc_model, never renderocc_ros.

Each folder imports only from the folders before it:

- recordings/: reads recordings as frames, and writes new ones.
- simulate/, importers/: make recordings with labels and 3D truth, from the simulated town and from published datasets.
- structure/: depth from motion, triangulated from images whose poses are known.
- label/: makes 2D labels for a recording.
- check/: names what in a recording would make training fail.
- prepare/: turns recordings into memory-mapped tables of labelled pixels.
- data/: makes samples and batches from the tables. Each is a function of (seed, epoch, index).
- accumulate/: 3D truth of a recording, from its LiDAR sweeps along the drive.
- supervision/: the losses: what labels say of a field, along rays, at points on rays and in voxels.
- evaluate/: metrics, thresholds and baselines.
- view/: writes recordings for the Rerun viewer.
- train/: a training run, from its settings to its checkpoints.
- study/: repeats the paper's comparisons on simulated towns.

`bench_loader`, beside them, measures what a training sample costs.
"""
