"""How good a network or anyone's predictions are: against 3D truth, and against 2D labels where there is none.

confusion: mIoU of volumes. rayiou: RayIoU. held_out: rendered rays against 2D labels. threshold: when a voxel is
occupied, from 2D labels. baselines: what needs no network. metrics, evaluate: the commands. report: tables, pictures.
"""
