"""Read recordings as frames of images, poses and labels; write new recordings."""
