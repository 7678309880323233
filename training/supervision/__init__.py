"""The losses: semantic density fields compared with 2D and 3D labels."""
