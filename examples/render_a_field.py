"""Render a semantic density field, and let a gradient flow back into it.

    python examples/render_a_field.py [--out FOLDER]

A road and a car are written into a field by hand, and drawn as a camera of the town's car would see them. Then the
density is learned back from the rendered distances alone: what training does, on one field instead of a network.
FOLDER gets `field.png`: distances and classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from renderocc_model import OCC3D_NUSCENES, Rays, Rig, SemanticDensityField, VoxelGrid, camera_rays, render
from renderocc_model.geometry.undistortion import network_view

GRID = VoxelGrid((0.0, -10.0, -1.0), (32.0, 10.0, 3.0), 0.5)  # metres in base_link: x forward, y left, z up
CLASSES = OCC3D_NUSCENES.names
HEIGHT, WIDTH = 64, 176


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--out", type=Path, default=Path("example_output/render"))
    options.add_argument("--steps", type=int, default=60, help="of learning the density back")
    arguments = options.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    camera = Rig.load(Path(__file__).parents[1] / "config" / "rigs" / "town_6cam.yaml")["cam_front"]
    view = network_view(camera.model, HEIGHT, WIDTH, camera.base_from_camera)
    rays = camera_rays(view, camera.base_from_camera)
    field = road_with_a_car()

    seen = render(field, rays)
    ahead = HEIGHT // 2 * WIDTH + WIDTH // 2
    print(f"the middle ray ends after {seen.mean_distance()[ahead]:.1f} m, at a {class_of(seen.semantics[ahead])}")
    picture = draw(seen.mean_distance(), seen.opacity, seen.semantics)
    cv2.imwrite(str(arguments.out / "field.png"), picture[..., ::-1])

    first, last = learn_back(field, rays, arguments.steps)
    print(f"mean error of rendered distances: {first:.2f} m before learning, {last:.2f} m after")
    print(f"wrote {arguments.out / 'field.png'}")


def class_of(logits: torch.Tensor) -> str:
    return CLASSES[OCC3D_NUSCENES.occupied_ids[int(logits.argmax())]]


def road_with_a_car() -> SemanticDensityField:
    """A road up to z = 0, and a car between 10 m and 14 m ahead: density 20 / m within, none elsewhere."""
    density = torch.zeros(GRID.shape)
    semantics = torch.zeros((*GRID.shape, len(OCC3D_NUSCENES.occupied_ids)))
    for name, lower, upper in (
        ("driveable_surface", (0.0, -10.0, -1.0), (32.0, 10.0, 0.0)),
        ("car", (10.0, -1.0, 0.0), (14.0, 1.0, 1.5)),
    ):
        voxels = tuple(
            slice(round((low - start) / GRID.voxel_size), round((high - start) / GRID.voxel_size))
            for low, high, start in zip(lower, upper, GRID.lower)
        )
        density[voxels] = 20.0
        semantics[(*voxels, OCC3D_NUSCENES.occupied_ids.index(CLASSES.index(name)))] = 1.0
    return SemanticDensityField(GRID, density, semantics)


def learn_back(truth: SemanticDensityField, rays: Rays, steps: int) -> tuple[float, float]:
    """Fit a density to the distances that the true field renders; the mean error before and after, metres."""
    wanted = render(truth, rays).distance
    logits = torch.full(GRID.shape, -2.0, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.2)
    errors = []
    for _ in range(steps):
        field = SemanticDensityField(GRID, torch.nn.functional.softplus(logits), truth.semantics)
        error = (render(field, rays).distance - wanted).abs().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    return errors[0], errors[-1]


def draw(distance: torch.Tensor, opacity: torch.Tensor, semantics: torch.Tensor) -> np.ndarray:
    """Distances above (near is bright) and classes below, (2 * HEIGHT, WIDTH, 3) uint8 RGB; black: nothing is there."""
    there = (opacity > 0.5).numpy()
    near = np.where(there, 255 * np.exp(-torch.nan_to_num(distance).numpy() / 15), 0).astype(np.uint8)
    colours = np.array(OCC3D_NUSCENES.colours, np.uint8)[list(OCC3D_NUSCENES.occupied_ids)]
    classes = colours[semantics.argmax(-1).numpy()] * there[:, None]
    return np.concatenate([near[:, None].repeat(3, 1), classes]).reshape(2 * HEIGHT, WIDTH, 3)


if __name__ == "__main__":
    main()
