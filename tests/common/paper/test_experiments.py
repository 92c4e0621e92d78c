"""Named commands, put together from the parts of commands/experiments.yaml."""

import shlex

import pytest

from common.foundation.errors import UserError
from common.paper.experiments import SECTIONS, command, names, read_scales, settings
from common.settings.config import ROOT, read_yaml

BOOK = read_yaml(ROOT / "commands" / "experiments.yaml")
SCALES = read_scales()
COMMANDS = {
    ("collect", "stack-state"): """
        collect.py task=manipobj-v0 env_kwargs.manipobj.mode=data_collection_stack
        env_kwargs.manipobj.num_cubes=3 obs=state dataset_name=stack-cube-noisy-v0
        dataset_type=noisy p_random_action=0.02 num_collect_episodes=3000 max_episode_steps=1000""",
    ("train", "ppp-image/hiql"): """
        train.py task=manipobj-v0 env_kwargs.manipobj.mode=task env_kwargs.manipobj.num_cubes=3
        obs=vqvae multiview=true train_dataset_name=ppp-cube-noisy-v0-mv agent=hiql hiql.alpha=0.3
        rep_model_checkpoint=visual_encoders/chkpts/vqvae-mv-ppp-cube-v0 hiql.subgoal_steps=25
        hiql.num_subgoals=32 steps=2501000 max_episode_steps=1000 eval_freq=250000
        num_eval_episodes=50 'run_name=ppp-image_hiql_${seed}'""",
    ("eval", "tetris-image/ec-sgiql/5-pieces"): """
        evaluate.py 'eval_checkpoint=${output_dir}/train/tetris-image_ec-sgiql_${seed}'
        eval_variant_name=tetris-image_ec-sgiql_5-pieces env_kwargs.pushtetris.mode=task
        env_kwargs.pushtetris.num_objects=5 env_kwargs.pushtetris.reward_mode=dense
        dlp_post_training_num_kp=26 sgiql.n_diffusion_samples=64 sgiql.value_competence_radius=-20
        sgiql.subgoal_steps=25 sgiql.num_subgoals=52 max_episode_steps=1500
        num_eval_episodes=100""",
    ("eval", "scene-state/ec-sgiql/no-subgoals"): """
        evaluate.py 'eval_checkpoint=${output_dir}/train/scene-state_ec-sgiql_${seed}'
        eval_variant_name=scene-state_ec-sgiql_no-subgoals env_kwargs.scene.mode=task
        env_kwargs.scene.num_cubes=1 sgiql.disable_subgoal=true max_episode_steps=1000
        num_eval_episodes=50""",
    ("train_encoder", "scene-image/dlp"): """
        -m visual_encoders.train encoder.kind=dlp train_dataset_name=visual-scene-noisy-v0
        train_dataset_div=3 encoder.frames_per_episode=400 encoder.dlp.n_kp_enc=24
        encoder.dlp.epochs=250 'run_name=scene-image_dlp_${seed}'""",
}


@pytest.mark.parametrize(("script", "name"), COMMANDS)
def test_whole_commands(script, name):
    line = shlex.split(COMMANDS[script, name])
    assert sorted(command(script, name)) == sorted(["python", *line])


def test_what_a_scale_appends():
    appended = SCALES["laptop-numbers"].overrides("eval", "ppp-state/ec-sgiql/3-cubes")
    assert sorted(appended) == shlex.split("""
        data_dir=datasets/data/laptop device=cpu max_episode_steps=700 num_eval_episodes=50
        num_video_episodes=3 num_workers=1 output_dir=output/laptop-numbers
        sgiql.n_diffusion_samples=64 sgiql.num_subgoals=22 sgiql.value_competence_radius=-17
        threads=1""")


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"there is no ppp-state/hecrl in commands/train\.sh"):
        settings("train", "ppp-state/hecrl")


@pytest.mark.parametrize("name", SCALES)
def test_everything_that_a_scale_changes_is_there_to_be_changed(name):
    scale = SCALES[name]
    variants = {figure.split("/")[2] for figure in names("eval") if figure.count("/") == 2}
    assert {*scale.ablations, *scale.other_numbers} <= variants
    assert scale.own.keys() <= BOOK["parts"].keys() | BOOK["experiments"].keys()
    parts = [*BOOK["parts"].values(), *BOOK["experiments"].values()]
    values = {value for part in (BOOK, *parts) for value in part.get("values", {})}
    for part in (scale.changes, *scale.own.values(), *scale.other_numbers.values()):
        assert part.keys() <= {"values", *(s for own in SECTIONS.values() for s in own)}
        assert part.get("values", {}).keys() <= values
