"""Agents that see what an encoder makes of images: data, learning, evaluation, mistakes."""

import shutil
from functools import partial
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

import train
from agents.observations.kinds import make_observation
from agents.observations.spec import ObservationSpec
from common.evaluation.evaluate import evaluate
from common.evaluation.video import save_grid
from common.foundation.errors import UserError
from common.runs import loading as training_data
from common.runs.agents import load_agent
from common.runs.checkpoint import load_checkpoint
from common.runs.loading import load_training_data
from common.runs.setup import Setup, make_setup, observe
from common.runs.warm_start import load_goal_policy
from common.settings import inherit as evaluation_settings
from common.settings.config import compose, identity, parse
from common.settings.inherit import merge
from datasets.store import Dataset
from envs.make import make_world
from tests.conftest import TINY
from tests.helpers import manipobj_worlds, pushtetris_worlds
from tests.helpers.crashes import refusal
from tests.helpers.datasets import record
from tests.helpers.encoder_folders import dlp_folder, encode_here, load, vqvae_folder
from visual_encoders import encode
from visual_encoders.checkpoints import load_folder, save_folder
from visual_encoders.dlp.encoders import Particles
from visual_encoders.frozen import EncoderChoice

CPU = torch.device("cpu")
SIZE, LENGTH, EPISODES, FEATURES = 64, 12, 3, 9
SECTION = "env_kwargs.pushtetris"
IMAGES = (
    *TINY[1:],  # but for the number of cubes
    "task=pushtetris-v0",
    f"{SECTION}.num_objects=1",
    f"{SECTION}.render_size={SIZE}",
    f"max_episode_steps={LENGTH}",
    "rep_model_device=cpu",
    "arch_mlp.h_dim=8",
    "steps=2",
    "log_freq=1",
    "num_eval_episodes=2",
)
AGENTS = {
    "ec-sgiql": ("obs=dlp", "agent=sgiql", "sgiql.filter_subgoals=false"),
    "ec-sgiql-awr": ("obs=dlp", "agent=sgiql", "sgiql.subgoal_policy_type=standard"),
    "ec-iql": ("obs=dlp", "agent=iql"),
    "ec-diffuser": (
        "obs=dlp",
        "agent=ecdiffuser",
        "ecdiffuser.embed_dim=null",
        "ecdiffuser.n_head=2",
    ),
    "hiql": ("obs=vqvae", "agent=hiql", "hiql.subgoal_steps=5"),
    "iql": ("obs=vqvae", "agent=iql"),
}
FOLDERS = {"dlp": dlp_folder, "vqvae": partial(vqvae_folder, size=SIZE)}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Encoders `dlp` and `vqvae`; data `tiny`, with their latents, and `blind`, without images."""
    place = tmp_path_factory.mktemp("place")
    for kind, make in FOLDERS.items():
        make(place / kind)
    settings = {"mode": "data_collection", "num_objects": 1, "render_size": SIZE}
    world = pushtetris_worlds.make_world(max_episode_steps=LENGTH, **settings)
    for name, pixels in (("tiny", True), ("blind", False)):
        record(place, name, world, episodes=EPISODES, pixels=pixels)
    for kind in FOLDERS:
        encode_here(Dataset.open(place, "tiny"), load(kind, place / kind), views=1)
    return place


@pytest.fixture
def settings(place, tmp_path):
    """Composes settings of a small training on latents of the kind in `obs`."""

    def make(*overrides: str):
        kind = next(o.removeprefix("obs=") for o in overrides if o.startswith("obs="))
        own = [f"data_dir={place}", f"output_dir={tmp_path}", "run_name=run"]
        return compose([*IMAGES, *own, f"rep_model_checkpoint={place / kind}", *overrides])

    return make


def seen(config):
    return observe(config, make_world(config))


def read(config):
    world = make_world(config)
    observation = observe(config, world)
    return load_training_data(config, world, observation, CPU)


# Observations.


@pytest.mark.parametrize(
    ("kind", "views", "spec"),
    [
        ("dlp", 1, ObservationSpec("entities", (6, FEATURES), 1, explicit=6)),
        ("dlp", 2, ObservationSpec("entities", (12, FEATURES), 2, explicit=6)),
        ("vqvae", 1, ObservationSpec("flat", (1024,), 1)),
        ("vqvae", 2, ObservationSpec("flat", (2048,), 2)),
    ],
)
def test_views_follow_each_other_and_rows_do_not_depend_on_their_company(place, kind, views, spec):
    world = manipobj_worlds.make_world(multiview=views == 2, width=SIZE, height=SIZE)
    observation = make_observation(kind, world, EncoderChoice(kind, str(place / kind), "cpu"))
    assert observation.spec == spec and observation.shape == spec.shape
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (3, views, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    identities = observation.identities(3, generator)
    assert identities.shape == (3, 0)
    obs = observation.encode(raw.reshape(-1, *observation.stored), identities)
    assert obs.shape == (3, *spec.shape) and obs.dtype == torch.float32
    single = load(kind, place / kind)
    for row in range(3):
        parts = obs[row].chunk(views)
        for view in range(views):
            alone = single.encode(raw[row, view][None, None])[0]
            assert torch.equal(parts[view], alone)
    picture = observation.picture(obs[0], raw[0].reshape(observation.stored).numpy())
    assert picture.shape == (SIZE, views * SIZE, 3) and picture.dtype == np.uint8


def test_a_subgoal_is_drawn_over_the_goal_s_background_with_its_particles(place):
    encoder = load("dlp", place / "dlp")
    frames = torch.randint(0, 256, (2, 1, SIZE, SIZE, 3), dtype=torch.uint8)
    rows = encoder.encode(frames[:1])
    before = rows.clone()
    rows[..., 5] = -3.0  # generated transparencies may leave their range: none is seen
    particles = Particles.from_rows(rows.clamp(min=-3.0))
    assert particles.on.max() == -3
    hidden = encoder.decode(rows, frames[:1])
    assert (rows[..., 5] == -3).all()  # what was given stays as it is
    code = encoder.model(frames[:1, 0].movedim(-1, 1) / 255).background_code
    background = encoder.model.background_decoder(code)[0].movedim(0, -1)
    torch.testing.assert_close(hidden[0, 0] / 255, background.detach(), atol=0.003, rtol=0)
    shown = before.clone()
    shown[..., 5] = 1.0
    assert (encoder.decode(shown, frames[:1]) != hidden).any()
    assert (encoder.decode(shown, frames[1:]) != encoder.decode(shown, frames[:1])).any()


# Data.


@pytest.mark.parametrize("kind", ["dlp", "vqvae"])
def test_the_buffer_maps_the_latents_and_normalises_what_it_draws(settings, place, kind):
    buffer, normaliser = read(settings(f"obs={kind}"))
    store = encode_here(Dataset.open(place, "tiny"), load(kind, place / kind), views=1)
    latents = torch.tensor(store.read(EPISODES))
    assert torch.equal(buffer.obs, latents)
    mean = latents.double().flatten(0, -2).mean(0)
    var = latents.double().flatten(0, -2).var(0, correction=0)
    torch.testing.assert_close(normaliser.mean, mean.float())
    torch.testing.assert_close(normaliser.var, var.float())
    draws = torch.Generator().manual_seed(0)
    indices = buffer.goals.transitions(buffer.episodes, 16, draws)
    batch = buffer.gather(indices)
    assert torch.equal(batch.obs, normaliser(latents[indices.state]))
    assert torch.equal(batch.policy_goal, normaliser(latents[indices.policy_goal]))
    first, second = buffer.pairs(8, 3, draws)
    assert first.abs().max() <= 5 and not torch.equal(first, second)


def test_mapped_latents_take_no_main_memory(settings, monkeypatch):
    monkeypatch.setattr(training_data, "free_memory", lambda place: 100_000)
    read(settings("obs=dlp", "reward=unsupervised"))
    with pytest.raises(UserError, match="GiB of memory with obs=rgb"):
        read(settings("obs=rgb", "reward=unsupervised"))


def test_the_first_use_encodes_and_the_command_does_the_same(
    settings, place, tmp_path, monkeypatch, capsys
):
    shutil.copytree(place / "tiny", tmp_path / "tiny")
    more = ("obs=dlp", f"data_dir={tmp_path}", "dlp_post_training_num_kp=8", "num_workers=1")
    buffer, _ = read(settings(*more))
    assert buffer.obs.shape == (EPISODES * LENGTH, 8, FEATURES)
    images = torch.from_numpy(Dataset.open(place, "tiny").load(["observations"])[0]["observations"])
    assert torch.equal(buffer.obs, load("dlp", place / "dlp", 8).encode(images.unsqueeze(1)))
    (folder,) = tmp_path.glob("tiny-dlp-*")
    monkeypatch.setattr(encode, "run_jobs", None)  # nothing is left to do
    arguments = ["tiny", *more, f"rep_model_checkpoint={place / 'dlp'}", "rep_model_device=cpu"]
    encode.main(arguments)
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    with pytest.raises(SystemExit):
        encode.main(["tiny", "obs=state", f"data_dir={tmp_path}"])
    assert "obs=state is made without an encoder; set obs=dlp" in capsys.readouterr().err


# Learning and acting.


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory) -> dict[str, Path]:
    """Checkpoints of every agent after two updates."""
    folder = tmp_path_factory.mktemp("output")
    own = [f"data_dir={place}", f"output_dir={folder}", "num_eval_episodes=1"]
    for name, overrides in AGENTS.items():
        encoder = f"rep_model_checkpoint={place / overrides[0].removeprefix('obs=')}"
        train.run(compose([*IMAGES, *own, encoder, f"run_name={name}", *overrides]))
    return {name: folder / "train" / name / "last.safetensors" for name in AGENTS}


def run(setup: Setup, num_envs: int, **options):
    parts = setup.agent, setup.world, setup.observation, setup.normaliser
    return evaluate(*parts, episodes=3, seed=3, num_envs=num_envs, workers=1, **options)


@pytest.mark.parametrize("name", ["ec-sgiql", "ec-sgiql-awr", "ec-diffuser", "hiql"])
def test_agents_learn_are_stored_and_act_alike_alone_and_in_company(trained, name, tmp_path):
    setup, config, step = load_agent(trained[name], CPU)
    assert step == 2 and config.obs in AGENTS[name][0]
    state = load_checkpoint(trained[name])
    assert next(iter(state.state["agent"].values()))["adam"]["step"] == 2
    assert state.encoder == setup.observation.encoder.fingerprint
    alone = run(setup, 1)
    company = run(setup, 3, videos=1, video_frame_skip=6)
    assert company.rows == alone.rows
    (clip,) = company.clips
    assert len(clip.frames) == len(clip.pictures) == 3
    assert clip.pictures[0].shape == (SIZE, SIZE, 3) and not clip.subgoals
    if name == "ec-diffuser":  # which pursues the goal itself
        assert (clip.pictures[0] == clip.pictures[1]).all()
    elif name != "ec-sgiql":  # whose particles, after two updates, lie outside of the picture
        assert (clip.pictures[0] != clip.pictures[1]).any()
    else:
        save_grid(tmp_path / "video.mp4", company.clips)
        frames = imageio.mimread(tmp_path / "video.mp4", memtest=False)
        assert frames[0].shape[0] == 3 * (4 * SIZE + 8 + 22)  # goal, subgoal, view


def test_sets_of_another_size_are_acted_on(trained):
    def configure(stored):
        return parse(stored | {"dlp_post_training_num_kp": 9})

    setup, *_ = load_agent(trained["ec-sgiql"], CPU, configure=configure)
    assert setup.observation.shape == (9, FEATURES)
    assert len(run(setup, 3).rows) == 3


# Going on.


def test_an_agent_s_run_knows_its_encoder_and_latents(place, settings, tmp_path) -> None:
    data = shutil.copytree(place, tmp_path / "own", symlinks=True)
    more = [*AGENTS["ec-iql"], f"data_dir={data}", f"rep_model_checkpoint={data / 'dlp'}"]
    train.run(settings(*more))
    marks = next(data.glob("tiny-dlp-*")) / "episodes.npy"
    stored = marks.read_bytes()
    np.save(marks, np.load(marks)[[1, 0, 2]])  # as another machine's would be
    line = refusal(lambda: train.run(settings(*more, "steps=3")))
    assert "learned from other data: latents " in line and line.count("/tiny-dlp-") == 2
    marks.write_bytes(stored)
    hparams, weights = load_folder(data / "dlp")
    save_folder(data / "dlp", hparams | {"note": "exported again"}, weights)
    encode_here(Dataset.open(data, "tiny"), load("dlp", data / "dlp"), views=1)
    line = refusal(lambda: train.run(settings(*more, "steps=3")))
    assert f"learned from other data: encoder {data}/dlp (content " in line
    train.run(settings(*more, "steps=3", "allow_changed_data=true"))


# Mistakes.


def test_another_encoder_than_the_agent_s_is_refused(trained, place, tmp_path, settings):
    dlp_folder(tmp_path / "other", seed=1)
    command = compose([*IMAGES, f"rep_model_checkpoint={tmp_path / 'other'}"]).raw

    def configure(stored):
        return parse(merge(stored, command, ["rep_model_checkpoint"]))

    message = r"learned from an encoder with SHA-256 \w{12}, the one given has \w{12}; set rep_m"
    with pytest.raises(UserError, match=message):
        load_agent(trained["ec-iql"], CPU, configure=configure)
    awr = ("obs=dlp", "agent=sgiql", "sgiql.load_pretrained_goal_pi=true")
    source = f"sgiql.goal_pi_chkpt={trained['ec-sgiql']}"
    config = settings(*awr, source, f"rep_model_checkpoint={tmp_path / 'other'}")
    observation = seen(config)
    normaliser = training_data.Normaliser.none(CPU)
    setup = make_setup(config, observation.world, observation, normaliser)
    with pytest.raises(UserError, match=r"its encoder .*dlp is not that of this agent"):
        load_goal_policy(setup, config)


@pytest.mark.parametrize("kind", ["dlp", "vqvae"])
def test_a_missing_encoder_says_how_to_get_one(settings, tmp_path, kind):
    fetch = rf"`python -m visual_encoders\.download_chkpts {kind}-mv-ppp-cube-v0\|{kind}-visual"
    train_it = rf"`python -m visual_encoders\.train encoder\.kind={kind} "
    with pytest.raises(UserError, match=f"obs={kind} needs an encoder: .*{fetch}.*{train_it}"):
        seen(settings(f"obs={kind}", "rep_model_checkpoint=null"))
    path = tmp_path / f"{kind}-push-tetris-v0"
    with pytest.raises(UserError, match=rf"no encoder at .*download_chkpts {path.name}`"):
        seen(settings(f"obs={kind}", f"rep_model_checkpoint={path}"))


def test_encoders_that_do_not_fit_are_refused_in_one_line(settings, place, tmp_path):
    def problem(*overrides: str) -> str:
        with pytest.raises(UserError) as error:
            seen(settings(*overrides))
        assert "\n" not in str(error.value)
        return str(error.value)

    swapped = problem("obs=dlp", f"rep_model_checkpoint={place / 'vqvae'}")
    assert "is a vqvae encoder and obs=dlp needs a dlp one; set obs=vqvae" in swapped
    other = problem("obs=dlp", f"{SECTION}.render_size=128")
    assert "trained on frames of 64 x 64 x 3, the settings make them 128 x 128 x 3" in other
    assert "dlp_post_training_num_kp" in problem("obs=dlp", "dlp_post_training_num_kp=65")
    shutil.copytree(place / "dlp", tmp_path / "partial")
    (tmp_path / "partial" / "best.pth").unlink()
    partial = problem("obs=dlp", f"rep_model_checkpoint={tmp_path / 'partial'}")
    assert partial.startswith("best.pth missing in")
    (tmp_path / "partial" / "best.pth").write_bytes(b"PK")
    broken = problem("obs=dlp", f"rep_model_checkpoint={tmp_path / 'partial'}")
    assert "best.pth is damaged" in broken


def test_encoders_of_other_images_are_refused_before_anything_is_written(settings, place, tmp_path):
    def seen_through(name: str, **notes: object) -> None:
        hparams, weights = load_folder(place / "dlp")
        save_folder(tmp_path / name, hparams | notes, weights)
        seen(settings("obs=dlp", f"rep_model_checkpoint={tmp_path / name}"))

    def problem(name: str, **notes: object) -> str:
        before = sorted(place.iterdir())
        with pytest.raises(UserError) as error:
            seen_through(name, **notes)
        assert "\n" not in str(error.value) and sorted(place.iterdir()) == before
        return str(error.value)

    other = "was trained on images of visual-scene-v0, the task is pushtetris-v0; give an encoder"
    assert other in problem("ours", environment="visual-scene-v0", views=1)
    assert other in problem("dlp-visual-scene-v0")  # a published one, which says it by its name
    views = problem("ours", environment="pushtetris-v0", views=2)
    assert "was trained on 2 views of an environment, the settings have 1; set multiview=t" in views
    seen_through("ours", environment="pushtetris-v0", views=1)
    seen_through("dlp-push-tetris-v0")


@pytest.mark.parametrize("kind", ["dlp", "vqvae"])
def test_encoders_of_other_channels_are_refused(settings, tmp_path, kind):
    FOLDERS[kind](tmp_path / "grey", channels=1)
    with pytest.raises(UserError, match=r"frames of 64 x 64 x 1, the settings .* 64 x 64 x 3; "):
        seen(settings(f"obs={kind}", f"rep_model_checkpoint={tmp_path / 'grey'}"))


@pytest.mark.parametrize("name", ["ec-iql", "hiql"])
def test_training_does_not_start_from_an_agent_of_another_encoder(
    trained, settings, tmp_path, name
):
    FOLDERS[AGENTS[name][0].removeprefix("obs=")](tmp_path / "other", seed=1)
    start = ("train_from_checkpoint=true", f"checkpoint={trained[name]}", "run_name=new")
    config = settings(*AGENTS[name], *start, f"rep_model_checkpoint={tmp_path / 'other'}")
    message = r"learned from an encoder with SHA-256 \w{12}, the one given has \w{12}; set rep_m"
    with pytest.raises(UserError, match=message) as error:
        train.run(config)
    assert "\n" not in str(error.value) and not (tmp_path / "train").exists()


def test_data_that_do_not_fit_are_refused(settings, place):
    with pytest.raises(UserError, match="blind has no images; collect with obs=rgb"):
        read(settings("obs=dlp", "train_dataset_name=blind"))
    choice = EncoderChoice("dlp", str(place / "dlp"), "cpu")
    two = manipobj_worlds.make_world(multiview=True, width=SIZE, height=SIZE)
    message = "has 1 view of 64 x 64 pixels, the settings ask for 2 views"
    with pytest.raises(UserError, match=message):
        make_observation("dlp", two, choice).check(Dataset.open(place, "tiny"))


def test_the_encoder_is_part_of_a_run_that_uses_one():
    state = identity(compose(["obs=state"]))
    assert state == identity(compose(["obs=state", "rep_model_checkpoint=a"]))
    runs = [
        identity(compose([f"obs={kind}", f"rep_model_checkpoint={path}", "rep_model_device=cpu"]))
        for kind, path in (("dlp", "a"), ("dlp", "b"), ("vqvae", "b"))
    ]
    assert len({str(one) for one in runs}) == 3
    assert not any("rep_model_device" in one for one in runs)
    assert "rep_model_device" in evaluation_settings.LOCAL
    with pytest.raises(UserError, match=r"rep_model_device=gpu is not known; allowed: auto, cpu"):
        compose(["rep_model_device=gpu"])
