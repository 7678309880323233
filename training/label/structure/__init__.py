"""Structure from motion with known poses: 3D points of what stands, from a vehicle's cameras and its odometry."""
