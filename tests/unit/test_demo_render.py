import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.demo.camera import Camera, follow_camera, head_camera
from shards.demo.ground import paint_background
from shards.demo.mocap import STILL_CLIPS, TRAIN_CLIPS, VALIDATION_CLIPS, load_clip, perform
from shards.demo.narrate import GROUND_PHRASES, WORDINGS, narrate
from shards.demo.render import Renderer, encode_jpeg
from shards.demo.scene import CLEARANCE_M, GROUNDS, BodyColours, Scene, random_scene
from shards.demo.skeleton import Pose
from tests.conftest import require

HEIGHT_M = 1.62  # of the model at size 1, sole to crown
PINK, LIME = (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)
OUTFIT = BodyColours(skin=(1.0, 1.0, 0.0), shirt=PINK, trousers=LIME, shoes=(0.0, 0.0, 0.0))
EMPTY = Scene("concrete", (1.0, 1.0, 1.0), (0.6, 0.75, 0.9), (0.0, 0.6, 0.8), props=())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(3))


@pytest.fixture
def pose(rng: np.random.Generator) -> Pose:
    try:
        return perform(load_clip("walk"), 1.0, rng).pose_at(0.5)
    except FileNotFoundError as error:
        require(False, str(error))
        raise


def near(picture: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Pixels whose hue is that of a pure ``colour``, in light or in shade."""
    values = picture.astype(float) / 255
    high = values[..., np.array(colour) > 0.5].min(axis=-1)
    low = values[..., np.array(colour) < 0.5].max(axis=-1)
    return (high > 0.3) & (low < 0.5 * high)


def test_third_person_shows_the_dressed_body_in_the_middle(
    pose: Pose, rng: np.random.Generator
) -> None:
    pytest.importorskip("pybullet")
    renderer = Renderer(128)
    renderer.set_scene(EMPTY, OUTFIT, size=1.0)
    camera = follow_camera(pose, 1.0, 0.8, rng)
    picture = renderer.picture(pose, camera)
    again = renderer.picture(pose, camera)
    assert picture.shape == (128, 128, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, again)
    shirt_rows, shirt_columns = np.nonzero(near(picture, PINK))
    trouser_rows, _ = np.nonzero(near(picture, LIME))
    assert len(shirt_rows) > 100
    assert len(trouser_rows) > 100
    assert shirt_rows.mean() < trouser_rows.mean()
    assert 44 < shirt_columns.mean() < 84


def test_first_person_shows_the_own_limbs_and_no_head(pose: Pose, rng: np.random.Generator) -> None:
    pytest.importorskip("pybullet")
    renderer = Renderer(128)
    renderer.set_scene(EMPTY, OUTFIT, size=1.0)
    down = Camera(
        eye=head_camera(pose, 1.0, rng).eye,
        forward=np.array([0.0, 0.0, -1.0]),
        up=pose.rotation["neck"][:, 0],
        fov_deg=100.0,
    )
    picture = renderer.picture(pose, down)
    assert near(picture, PINK).mean() + near(picture, LIME).mean() > 0.02
    assert near(picture, OUTFIT.skin).mean() < 0.3


def test_head_camera_follows_the_head(pose: Pose, rng: np.random.Generator) -> None:
    camera = head_camera(pose, 1.0, rng)
    assert 0.8 * HEIGHT_M < camera.eye[2] < HEIGHT_M
    assert camera.forward @ pose.rotation["neck"][:, 0] > 0.7
    assert camera.forward[2] < 0  # looks down
    assert abs(camera.forward @ camera.up) < 1e-9


def test_rays_go_through_the_pixels() -> None:
    camera = Camera(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), fov_deg=90.0)
    rays = camera.rays(4)
    np.testing.assert_allclose(rays[0, 0], [1, 0.75, 0.75])  # top left: y is left of x, z is up
    np.testing.assert_allclose(rays[3, 3], [1, -0.75, -0.75])


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_shadow_lies_where_the_sun_throws_it(ground: str) -> None:
    above = Camera(np.array([0, 0, 5.0]), np.array([0, 0, -1.0]), np.array([0, 1.0, 0]), 60.0)
    scene = Scene(ground, (1.0, 1.0, 1.0), (0.6, 0.75, 0.9), (0.0, 0.6, 0.8), props=())
    ball = np.array([0.0, 0.0, 1.2])
    clear = paint_background(scene, above, 64, [])
    shaded = paint_background(scene, above, 64, [(ball, ball, 0.3)])
    rows, columns = np.nonzero(np.abs(clear - shaded).max(axis=-1) > 0.05)
    metres_per_pixel = 2 * 5 * np.tan(np.deg2rad(30)) / 64
    # A ball at height 1.2 under a sun at slope 0.8 / 0.6 in +y: the shadow is 0.9 m to -y.
    assert (rows.mean() + 0.5 - 32) * metres_per_pixel == pytest.approx(0.9, abs=0.1)
    assert (columns.mean() + 0.5 - 32) * metres_per_pixel == pytest.approx(0, abs=0.1)


def test_objects_keep_off_the_way(rng: np.random.Generator) -> None:
    way = np.stack([np.linspace(0, 20, 50), np.zeros(50)], axis=1)
    for prop in random_scene(rng, way).props:
        assert np.linalg.norm(way - prop.position, axis=1).min() >= CLEARANCE_M


def test_jpeg_keeps_the_picture() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    picture = np.stack([ramp, ramp.T, ramp], axis=-1)
    decoded = np.array(Image.open(io.BytesIO(encode_jpeg(picture))))
    assert np.abs(decoded.astype(int) - picture).mean() < 6


@pytest.mark.parametrize("clip", TRAIN_CLIPS + STILL_CLIPS + VALIDATION_CLIPS)
def test_every_clip_is_narrated_in_several_wordings(clip: str, rng: np.random.Generator) -> None:
    sentences = {text for _ in range(30) for text in narrate(clip, 1.0, "grass", rng)}
    assert len(WORDINGS[clip]) >= 3
    assert len(sentences) >= 5
    assert all(text.startswith("C ") and text.endswith(".") for text in sentences)
    assert any(GROUND_PHRASES["grass"] in text for text in sentences)


def test_narrations_tell_the_tempo(rng: np.random.Generator) -> None:
    assert not any("C slowly " in text for text in narrate("sit", 0.8, "tiles", rng))
    assert all("C slowly " in text for text in narrate("run", 0.8, "tiles", rng))
    assert all("C quickly " in text for text in narrate("run", 1.2, "tiles", rng))
    first, second = narrate("run", 1.0, "tiles", rng)
    assert first != second


@pytest.mark.parametrize("fails", [False, True])
def test_the_line_of_pybullets_build_is_left_out_and_nothing_else(
    fails: bool, tmp_path: Path
) -> None:
    pytest.importorskip("pybullet")
    if fails:
        lines = ["import os", r"os.write(2, b'pybullet build time: 1\nno display\n')", "1 / 0"]
        (tmp_path / "pybullet.py").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "from shards.demo.render import Renderer; Renderer(8)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    if not fails:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0] == "no display"
    assert said[-1] == "ZeroDivisionError: division by zero"
