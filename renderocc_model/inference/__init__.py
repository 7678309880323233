"""From views of the cameras to occupancy: `Predictor`, and what makes it fast.

`predictor` is what users call. `loading` chooses what runs the network and makes it ready: `prepared_network` (torch;
`folding`, `precision`), `openvino_network`, or an exported file. `camera_set` holds what frames of the same cameras
share; on CUDA devices `fixed_frames` and `cuda_graph` replay recorded frames. `occupancy_reader` turns the network's
output into occupied, free and unknown voxels (`compaction`). `gpu_check` compares the kernels of a GPU with their
references before they are used. `rolling_map` remembers what frames have shown; `rendered_views` draws a volume as a
camera sees it.
"""
