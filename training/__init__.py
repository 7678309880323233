"""From recordings to trained networks, and how good they are. Imports renderocc_model, never renderocc_ros.

In the order in which a recording passes through:

- simulate/, importers/: recordings with labels and truth, of the simulated town and of published datasets.
- frames, recorder, new_bag, label_images, raw_classes, notes: reading recordings as frames, writing new ones.
- label/, check/: 2D labels for a recording; what in it would make training fail.
- prepare, extract, shard, tables: recordings to memory-mapped tables of labelled pixels.
- sampling, augment, dataset, batch, loader: samples and batches, each a function of (seed, epoch, index).
- losses, queries, ray_terms, depth_targets, voxel_truth, supervision, supervision_config: what labels say of a field.
- train, train_config, run_data, loop, learner, forward, optimise, run_folder, progress, pictures, distributed: a run.
- evaluate/, study/: metrics, thresholds, baselines; the paper's comparisons.
"""
