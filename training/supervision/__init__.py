"""What 2D and 3D labels say of a semantic density field."""
