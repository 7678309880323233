"""The subcommands of `renderocc` that need ROS: demo, doctor, replay and the benchmarks of the node."""
