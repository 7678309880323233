"""From subscriptions to complete sets of images, first part of an image's way to the network.

`subscriptions` receive each message as serialised bytes, and `inputs` hands it to `Intake.add` in `intake`, which reads
only its header. The `matcher` joins the images of all cameras that belong to one moment, with the help of
`camera_queue`, `camera_liveness` and `clock_jumps`. Each complete set goes into the intake's `mailbox`, where a newer
set replaces one that still waits; the worker of the folder `frame` takes it from there.
"""
