"""Reading recordings as frames of images, poses and labels, and writing new ones."""
