"""ROS messages as bytes, recordings and transforms, without ROS: what the node and the training side both read.

`cdr` reads and writes serialised messages through NumPy, `bags` opens rosbag2 recordings (with the package rosbags,
which nothing else here needs), `tf_buffer` answers for transforms over time as tf2 does.
"""
