"""Rendering of a semantic density field: `render(field, rays, step=0.5) -> RenderResult`."""

from .reference import RenderResult, intersect_box, render, runs_of_similar_length

__all__ = ["RenderResult", "intersect_box", "render", "runs_of_similar_length"]
