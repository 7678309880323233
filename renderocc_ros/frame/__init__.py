"""From a set of image messages to an occupancy volume, second part of an image's way to the network.

The thread of `worker` takes the newest set out of the intake's mailbox and gives it to `FramePipeline.process` in
`pipeline`. There `placement` finds each camera's pose from TF or from `mounts`, `decode_view` turns the bytes into
pixels of the network's undistorted view, and `Predictor.predict` runs the network that `network_setup` made. The worker
hands the finished `Frame` to the publishers of the folder `output`.
"""
