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
    centers, radii = _resting_spheres(rng, count=int(rng.integers(5, 9)))
    colors = rng.uniform(0.1, 0.9, (len(radii), 3))
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
    gloss, shiny = np.zeros_like(lit), hit_sphere & (lit > 0)
    gloss[shiny] = np.clip((normals[shiny] * half[shiny]).sum(-1), 0, 1) ** 60
    image = albedo * (0.22 + 0.85 * lit[..., None]) + 0.7 * gloss[..., None]
    sky = np.clip(0.5 + rays[..., 1:2], 0, 1) * np.array([0.35, 0.55, 0.95])
    sky = sky + (1 - np.clip(0.5 + rays[..., 1:2], 0, 1)) * np.array([0.95, 0.9, 0.85])
    fog = np.clip(depth / 40, 0, 1)[..., None]
    image = np.where((hit_floor | hit_sphere)[..., None], image * (1 - fog) + sky * fog, sky)
    return _to_uint8(image)


def _resting_spheres(rng: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
    """Place ``count`` spheres on the floor, clear of one another: centers (n, 3), radii (n,)."""
    centers: list[FloatArray] = []
    radii: list[float] = []
    while len(radii) < count:
        radius = rng.uniform(0.3, 0.85)
        z = rng.uniform(3.2, 8.0)
        center = np.array([rng.uniform(-0.6, 0.6) * z, _FLOOR + radius, z])
        gaps = [
            np.linalg.norm(center - other) - radius - reach
            for other, reach in zip(centers, radii, strict=True)
        ]
        if min(gaps, default=1.0) > 0.05:
            centers.append(center)
            radii.append(radius)
    return np.array(centers), np.array(radii)


def _nearest(
    origin: FloatArray, rays: FloatArray, centers: FloatArray, radii: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Return the distance to the nearest sphere along each ray (inf: none) and its index."""
    distance = np.full(rays.shape[:-1], np.inf)
    index = np.full(rays.shape[:-1], -1, np.intp)
    # A plane for each coordinate: three times as fast as vectors of three.
    ox, oy, oz = np.ascontiguousarray(np.moveaxis(origin, -1, 0))
    rx, ry, rz = np.ascontiguousarray(np.moveaxis(rays, -1, 0))
    for n, (center, radius) in enumerate(zip(centers, radii, strict=True)):
        x, y, z = ox - center[0], oy - center[1], oz - center[2]
        along = x * rx + y * ry + z * rz
        inside = along**2 - (x**2 + y**2 + z**2) + radius**2
        reach = -along - np.sqrt(np.maximum(inside, 0))
        closer = (inside > 0) & (reach > 1e-4) & (reach < distance)
        distance[closer], index[closer] = reach[closer], n
    return distance, index


def mountains(size: int, seed: int) -> npt.NDArray[np.uint8]:
    """Render ridges that fade into haze before an evening sky with a low sun.

    Returns:
        uint8 RGB of shape (size, size, 3).
    """
    rng = np.random.default_rng(seed)
    height = np.linspace(1, 0, size)[:, None]
    across = np.linspace(0, 1, size)[None, :]
    zenith = np.array([0.06, 0.14, 0.38]) * rng.uniform(0.7, 1.6)
    horizon = np.array([0.95, 0.55, 0.3]) * rng.uniform(0.75, 1.1, 3)
    blend = np.clip((height - 0.5) / 0.5, 0, 1)[..., None] ** 0.7
    image = blend * zenith + (1 - blend) * horizon + np.zeros((size, size, 1))
    from_sun = np.hypot(across - rng.uniform(0.25, 0.75), height - rng.uniform(0.64, 0.76))
    glow = 0.5 * np.exp(-from_sun / 0.16) + 1.5 / (1 + np.exp((from_sun - 0.035) / 0.0015))
    image = image + glow[..., None] * np.array([1.0, 0.85, 0.6])
    near, far = np.array([0.012, 0.02, 0.03]) * rng.uniform(0.6, 1.6, 3), 0.55 * horizon + 0.08
    for layer in range(6):
        depth = layer / 5
        ridge = 0.6 - 0.45 * depth + (0.08 + 0.1 * depth) * _ridge(size, rng)
        drop = ridge[None, :] - height  # how far below the ridge
        haze = np.clip(1 - drop / 0.3, 0, 1)[..., None] * (1 - depth)
        shade = (far * (1 - depth) + near * depth) * (1.25 - 0.25 * haze) + 0.06 * haze
        texture = 1 + 0.5 * depth * (_value_noise(size, 24 + 30 * layer, rng) - 0.5)[..., None]
        image = np.where(drop[..., None] > 0, shade * texture, image)
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
