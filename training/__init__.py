"""From recordings to trained networks, and how good they are. Imports renderocc_model, never renderocc_ros.

Each folder imports only from the folders before it:

- recordings/: reads recordings as frames, and writes new ones; importers/: recordings made from published datasets;
  many/: many recordings found, and shared out over processes or machines.
- simulate/: makes recordings of a simulated town, with labels and 3D truth.
- label/: makes 2D labels for a recording. structure/: depth from motion, triangulated from images with known poses;
  ground/: the classes ground and obstacle, from points.
- data/: makes samples and batches, each a function of (seed, epoch, index); prepare/: the memory-mapped tables of
  labelled pixels that they come from.
- check/: names what in a recording would make training fail.
- supervision/: the losses: what labels say of a field, along rays, at points on rays and in voxels.
- evaluate/: metrics, thresholds and baselines; truth/: 3D truth of a recording, from its LiDAR sweeps along the drive;
  view/: recordings for the Rerun viewer; int8/: networks with INT8 layers, and what they lose.
- train/: a training run, from its settings to its checkpoints.
- learn/: one command from a recording to a network.
- study/: repeats the paper's comparisons on simulated towns.

`bench_loader`, beside them, measures what a training sample costs.
"""
