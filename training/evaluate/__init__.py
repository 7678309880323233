"""Evaluates networks, and volumes of any origin, against 3D truth and against 2D labels.

- evaluate, metrics: the commands `renderocc eval` and `renderocc metrics`.
- confusion, rayiou: mIoU and RayIoU of volumes.
- held_out: rendered rays against 2D labels.
- threshold: the occupancy threshold, from 2D labels.
- baselines: volumes that need no network.
- report: tables and the picture of the confusion matrix.
- int8: calibrates INT8 networks on a recording, and compares them with float32.
"""
