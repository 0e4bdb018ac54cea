"""A small renderer: computer-generated scenes for the demo, made on the spot from a seed.

Plain NumPy ray casting, no textures of others: good enough to look like computer graphics, and
nothing like a photograph.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

FloatArray = npt.NDArray[np.float64]

_SUN = np.array([0.5, 0.75, -0.45]) / np.linalg.norm([0.5, 0.75, -0.45])
_FLOOR = -1.0


def spheres(size: int, seed: int) -> npt.NDArray[np.uint8]:
    """Render glossy spheres on a tiled floor, with hard shadows and a gradient sky.

    Returns:
        uint8 RGB of shape (size, size, 3).
    """
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 8))
    radii = rng.uniform(0.35, 0.95, count)
    centers = np.stack(
        [rng.uniform(-2.6, 2.6, count), _FLOOR + radii, rng.uniform(3.5, 8.0, count)], axis=1
    )
    colors = rng.uniform(0.15, 0.95, (count, 3))
    y, x = np.mgrid[0.75 : -0.75 : size * 1j, -0.75 : 0.75 : size * 1j]
    rays = np.stack([x, y - 0.12, np.ones_like(x)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    origin = np.zeros_like(rays)

    distance, index = _nearest(origin, rays, centers, radii)
    with np.errstate(divide="ignore"):
        floor = np.where(rays[..., 1] < -1e-6, _FLOOR / rays[..., 1], np.inf)
    hit_floor = (floor < distance) & (floor < 60)
    hit_sphere = (index >= 0) & ~hit_floor
    depth = np.where(hit_floor, floor, np.where(hit_sphere, distance, 0.0))
    points = rays * depth[..., None]

    normals = np.zeros_like(rays)
    normals[..., 1] = 1.0
    on = centers[index[hit_sphere]]
    normals[hit_sphere] = (points[hit_sphere] - on) / radii[index[hit_sphere]][:, None]
    tiles = (np.floor(points[..., 0]) + np.floor(points[..., 2])) % 2
    albedo = np.where(tiles[..., None] > 0, 0.85, 0.3) * np.ones(3)
    albedo[hit_sphere] = colors[index[hit_sphere]]

    _, blocker = _nearest(
        points + normals * 1e-3, np.broadcast_to(_SUN, rays.shape), centers, radii
    )
    lit = np.where(blocker >= 0, 0.0, np.clip(normals @ _SUN, 0, 1))
    half = _SUN - rays
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    gloss = np.where(hit_sphere & (lit > 0), np.clip((normals * half).sum(-1), 0, 1) ** 60, 0)
    image = albedo * (0.22 + 0.85 * lit[..., None]) + 0.7 * gloss[..., None]
    sky = np.clip(0.5 + rays[..., 1:2], 0, 1) * np.array([0.35, 0.55, 0.95])
    sky = sky + (1 - np.clip(0.5 + rays[..., 1:2], 0, 1)) * np.array([0.95, 0.9, 0.85])
    fog = np.clip(depth / 40, 0, 1)[..., None]
    image = np.where((hit_floor | hit_sphere)[..., None], image * (1 - fog) + sky * fog, sky)
    return _to_uint8(image)


def _nearest(
    origin: FloatArray, rays: FloatArray, centers: FloatArray, radii: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Return the distance to the nearest sphere along each ray (inf: none) and its index."""
    distance = np.full(rays.shape[:-1], np.inf)
    index = np.full(rays.shape[:-1], -1, np.intp)
    for n, (center, radius) in enumerate(zip(centers, radii, strict=True)):
        offset = origin - center
        along = (offset * rays).sum(-1)
        inside = along**2 - (offset**2).sum(-1) + radius**2
        reach = -along - np.sqrt(np.maximum(inside, 0))
        closer = (inside > 0) & (reach > 1e-4) & (reach < distance)
        distance[closer], index[closer] = reach[closer], n
    return distance, index


def mountains(size: int, seed: int) -> npt.NDArray[np.uint8]:
    """Render ridges of value noise that fade into haze before an evening sky.

    Returns:
        uint8 RGB of shape (size, size, 3).
    """
    rng = np.random.default_rng(seed)
    height = np.linspace(1, 0, size)[:, None, None]
    top, bottom = rng.uniform(0.1, 0.6, 3), np.array([1.0, 0.75, 0.5]) * rng.uniform(0.7, 1)
    image = height * top + (1 - height) * bottom + np.zeros((size, size, 1))
    near, far = rng.uniform(0.02, 0.2, 3), bottom * 0.9
    for layer in range(6):
        depth = layer / 5
        ridge = 0.62 - 0.45 * depth + 0.18 * _ridge(size, rng)
        below = np.linspace(1, 0, size)[:, None] < ridge[None, :]
        shade = far * (1 - depth) + near * depth
        texture = 1 + 0.25 * (_value_noise(size, 24 + 20 * layer, rng) - 0.5)[..., None]
        image = np.where(below[..., None], shade * texture, image)
    return _to_uint8(image)


def _ridge(size: int, rng: np.random.Generator) -> FloatArray:
    """Return a fractal line of shape (size,), about in [-1, 1]."""
    line, x = np.zeros(size), np.linspace(0, 1, size)
    for octave in range(7):
        knots = rng.uniform(-1, 1, 3 * 2**octave + 1)
        line += np.interp(x, np.linspace(0, 1, len(knots)), knots) / 2 ** (octave + 1)
    return line


def _value_noise(size: int, cells: int, rng: np.random.Generator) -> FloatArray:
    """Return smooth noise of shape (size, size), in [0, 1]."""
    grid = Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), np.float64) / 255


def _to_uint8(image: FloatArray) -> npt.NDArray[np.uint8]:
    return np.rint(np.clip(image, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
