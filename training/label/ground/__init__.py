"""Ground and obstacles from the points of a LiDAR or of depth images, without annotation and without a network."""
