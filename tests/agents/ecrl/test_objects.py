"""The classifier of particles: labels by pixels, learning, its file, its command."""

import numpy as np
import pytest
import torch

from agents.ecrl import objects
from agents.ecrl.objects import ObjectClassifier, load_classifier, on_objects, train_classifier
from common.foundation.errors import UserError
from common.settings.config import compose
from envs.make import make_world
from envs.rendering import rendering_problem
from tests.helpers.encoder_folders import dlp_folder


def test_a_particle_is_an_objects_if_its_place_lies_on_one() -> None:
    masks = np.zeros((2, 5, 9), bool)
    masks[0, 0, 8] = masks[1, 2, 4] = True
    corner, middle = [-1.0, 1.0], [0.1, -0.1]
    places = torch.tensor([[corner, middle, [1.0, 1.0]], [corner, middle, [-3.0, 3.0]]])
    assert on_objects(places, masks).tolist() == [[True, False, False], [False, True, False]]


def looks_and_labels(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    looks = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    return looks, looks[:, 0] * looks[:, 1] > 0.2


def test_it_learns_what_no_line_separates_and_keeps_it_in_a_file(tmp_path) -> None:
    looks, labels = looks_and_labels(2000)
    classifier, losses = train_classifier(looks[500:], labels[500:], seed=1)
    assert losses[-1] < 0.5 * losses[0]
    assert (classifier(looks[:500]) == labels[:500]).float().mean() > 0.95
    path = tmp_path / "objects.safetensors"
    classifier.save(path)
    again = load_classifier(path, 4)
    assert torch.equal(again(looks.view(20, 100, 4)).flatten(), classifier(looks))
    same, _ = train_classifier(looks[500:], labels[500:], seed=1)
    assert torch.equal(same[0].weight, classifier[0].weight)
    assert sum(p.numel() for p in classifier.parameters()) == 640 + 2 * 16_512 + 258


def test_a_file_of_another_encoder_or_none_is_refused(tmp_path) -> None:
    path = tmp_path / "objects.safetensors"
    ObjectClassifier(4).save(path)
    with pytest.raises(UserError, match="is for 4 visual features, the particles have 8; train"):
        load_classifier(path, 8)
    for content in (b"", b"nothing"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"td3\.object_classifier=.* cannot be read"):
            load_classifier(path, 4)
    with pytest.raises(UserError, match="cannot be read"):
        load_classifier(tmp_path / "none", 4)


def test_the_command_trains_on_what_the_world_labels(tmp_path, monkeypatch, capsys) -> None:
    looks, labels = looks_and_labels(400)
    drawn = looks.view(10, 40, 4), labels.view(10, 40)
    monkeypatch.setattr(objects, "label_particles", lambda config, frames: drawn)
    path = tmp_path / "objects.safetensors"
    objects.main([str(path), "task=pushtetris-v0", "--frames", "10"])
    assert load_classifier(path, 4)[0].in_features == 4
    assert "of the particles of 2 frames set aside" in capsys.readouterr().out
    monkeypatch.setattr(objects, "label_particles", lambda c, f: (drawn[0], drawn[1] & False))
    with pytest.raises(SystemExit):
        objects.main([str(path), "task=pushtetris-v0"])
    assert "error: the particles of 20 frames are on no object" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["task=pushtetris-v0", "obs=state"], "obs=state has no particles; set obs=dlp"),
        (["--frames", "1"], "--frames=1 is too few; allowed: 2 or more"),
    ],
)
def test_the_command_refuses_what_cannot_be(arguments, problem, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        objects.main([str(tmp_path / "x"), *arguments])
    assert problem in capsys.readouterr().err


def test_labels_come_from_the_pixels_in_which_the_simulator_shows_objects(tmp_path) -> None:
    if problem := rendering_problem():
        pytest.skip(problem)
    size = ["env_kwargs.pushing.width=64", "env_kwargs.pushing.height=64", "multiview=true"]
    encoder = f"rep_model_checkpoint={dlp_folder(tmp_path / 'encoder')}"
    config = compose(["task=pushing-v0", "obs=dlp", "rep_model_device=cpu", encoder, *size])
    looks, labels = objects.label_particles(config, 2)
    assert looks.shape == (2, 12, 3) and labels.shape == (2, 12)
    env = make_world(config).make(pixels=True)
    frame, _ = env.reset(seed=config.seed)
    red, *others = np.moveaxis(frame.astype(int), -1, 0)
    masks, red = env.unwrapped.object_masks(), red > np.maximum(*others) + 60
    assert masks.shape == (2, 64, 64) and masks[red].all() and 0 < masks.mean() < 0.02
    assert red.sum() > 0.5 * masks.sum()  # the rest are its edges
    env.close()
