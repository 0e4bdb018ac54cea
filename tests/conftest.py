"""What tests of all parts share: images of a checkout's neighbor, image makers, a Chromium."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; before numpy and torch read it
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.browser import CHROMIUM, FLAGS

# A busy machine is no failure; CI draws the same examples every time.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

PictureMaker = Callable[..., Image.Image]
FolderMaker = Callable[..., Path]
Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser"):  # which takes seconds to start
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return ``once(name, make)``: a folder that one worker fills for all, as trainings are long.

    ``make`` is called with the empty folder.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = root / "once" / name, root / "once" / f"{name}.done"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "once" / f"{name}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The training and test images: ``$REALBENCH_SHARED_DATA``, else ``../shared/data``.

    They are too many, and not ours, to be kept in the repository; without them the test is skipped.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("REALBENCH_SHARED_DATA") or beside)
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"needs the shared images: no manifest.csv in {folder}")
    return folder


@pytest.fixture(scope="session")
def make_picture() -> PictureMaker:
    """Return ``make_picture(width=64, height=48, seed=0)``, a colored picture in mode RGB.

    Smooth colors with some texture, the same for the same arguments; no two sides are alike, so
    that a turned or mirrored copy differs.
    """

    def make(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width] / max(width, height)
        angles = rng.uniform(0, 2 * np.pi, 3)
        waves = [np.sin(7 * (x * np.cos(a) + y * np.sin(a)) + 3 * a) for a in angles]
        colors = 128 + 70 * np.stack(waves, axis=-1) + 40 * (x - y * y)[..., None]
        noise = rng.normal(0, 4, colors.shape)
        return Image.fromarray(np.clip(colors + noise, 0, 255).astype(np.uint8))

    return make


@pytest.fixture
def make_folder(tmp_path: Path, make_picture: PictureMaker) -> FolderMaker:
    """Return ``make_folder(name, count=3, size=(64, 48), format="jpg")``, which fills a folder.

    It writes pictures ``0000.jpg``, ``0001.jpg`` and so on, different in each folder, and returns
    the folder's path under ``tmp_path``.
    """

    def make(
        name: str, count: int = 3, size: tuple[int, int] = (64, 48), format: str = "jpg"
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            seed = zlib.crc32(f"{name}/{i}".encode())
            make_picture(*size, seed=seed).save(folder / f"{i:04d}.{format}")
        return folder

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium; without one the test is skipped."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs the test extra's Playwright"
    )
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Both colour schemes, in turn."""
    return str(request.param)
