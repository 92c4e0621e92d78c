"""An evaluation as the settings describe it, the same for train.py and evaluate.py."""

from collections.abc import Callable
from functools import partial

from common.agent_files import Setup
from common.config import Config
from common.evaluation import Evaluation, check_rendering, evaluate
from common.processes import Patience
from common.subgoal_watch import watching


def prepare_evaluation(config: Config, setup: Setup) -> Callable[..., Evaluation]:
    """`evaluate` with all its arguments but `seed` and `stopped`.

    What is in the way of an evaluation shows here, long before one begins: raises `UserError` if
    the settings ask for what this agent, world or machine cannot do.
    """
    check_rendering(setup.world, setup.observation)
    return partial(
        evaluate,
        setup.agent,
        setup.world,
        setup.observation,
        setup.normaliser,
        episodes=config.num_eval_episodes,
        num_envs=config.num_eval_envs,
        workers=config.num_workers,
        patience=Patience(config.worker_timeout, config.worker_retries),
        tasks=config.eval_tasks,
        videos=config.num_video_episodes if config.save_video else 0,
        video_frame_skip=config.video_frame_skip,
        progress=True,
        **watching(config, setup),
    )
