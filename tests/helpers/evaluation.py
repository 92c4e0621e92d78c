"""Evaluations in the point world."""

import torch

from agents.observations.kinds import make_observation
from common.data.normaliser import Normaliser
from common.evaluation.evaluate import Evaluation, evaluate
from tests.helpers.fake_agents import PointAgent
from tests.helpers.point_world import point_world

EPISODES = 5
SHAPE = make_observation("ec_state_gen", point_world()).shape


def run_fake(num_envs: int, workers: int, *, seed: int = 7, **options) -> Evaluation:
    world = options.pop("world", None) or point_world(12)
    observation = make_observation("ec_state_gen", world)
    normaliser = Normaliser(torch.full(SHAPE[-1:], 0.1), torch.full(SHAPE[-1:], 0.5))
    agent = options.pop("agent", None) or PointAgent(SHAPE)
    spread = {"episodes": EPISODES, "seed": seed, "num_envs": num_envs, "workers": workers}
    return evaluate(agent, world, observation, normaliser, **spread | options)
