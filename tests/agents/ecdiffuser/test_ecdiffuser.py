"""EC-Diffuser: networks, loss, schedule, average of the weights, acting, training, refusals."""

import math

import pytest
import torch

import train
from agents.ecdiffuser.ecdiffuser import ECDiffuser
from agents.ecdiffuser.windows import Scaling, WindowDiffuser
from agents.networks.entities import EITSettings
from agents.observations.spec import ObservationSpec
from common.data.batches import Windows
from common.data.buffer import Buffer
from common.data.goals import Episodes
from common.evaluation import evaluate as evaluation_run
from common.foundation.errors import UserError
from common.runs.loading import load_training_data
from common.runs.setup import observe
from common.settings.config import compose
from common.training.engine import make_updates
from datasets.store import Dataset
from envs.make import make_world
from tests.helpers.agents import PARTICLES, SETS, act, context, generators, settings_of
from tests.helpers.crashes import fail_at
from tests.helpers.evaluation import SHAPE, run_fake
from tests.helpers.networks import SPECS, count
from tests.helpers.training import RHYTHM, assert_same_run, folder_of, interrupt, result
from tests.helpers.updates import make_buffer, make_draws
from tests.helpers.windows import make

SMALL = EITSettings(
    embed_dim=64, h_dim=256, n_head=8, init_std=0.02, dropout=0.0, n_diffuser_layers=8
)
STANDARD = EITSettings(
    embed_dim=256, h_dim=256, n_head=8, init_std=0.02, dropout=0.0, n_diffuser_layers=6
)
LARGE = EITSettings(
    embed_dim=512, h_dim=512, n_head=8, init_std=0.02, dropout=0.0, n_diffuser_layers=12
)
# Of networks as small as the other agents' in tests of whole runs.
TINY = [f"ecdiffuser.{key}=null" for key in ("embed_dim", "h_dim", "n_head", "n_layers")]


def make_windows(spec: ObservationSpec = SETS, slots: int = 4, rows: int = 6) -> Windows:
    g = torch.Generator().manual_seed(1)
    action = torch.rand(rows, slots, 2, generator=g) * 2 - 1
    obs = torch.randn(rows, slots, *spec.shape, generator=g)
    return Windows(obs, action, batch_size=[rows])


def plain_diffuser(spec: ObservationSpec, actions: int, size: EITSettings) -> WindowDiffuser:
    return WindowDiffuser(spec, actions, size, 5, 5, predicts_noise=False, closed_gates=False)


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "actions", "views", "counts"),
    [
        (48, 10, 3, 2, (None, 8_089_869, None)),
        (48, 12, 3, 2, (None, 8_090_895, None)),
        (40, 10, 9, 1, (None, 8_092_691, None)),
        (4, 15, 5, 1, (718_356, 8_093_204, 60_653_588)),
        (40, 14, 5, 2, (717_907, 8_092_947, None)),
        (24, 14, 5, 1, (717_843, 8_092_691, None)),
        (20, 14, 2, 1, (716_304, 8_091_152, None)),
    ],
)
def test_parameter_counts_are_those_of_the_reference(n, d, actions, views, counts) -> None:
    """The table of the specification (ecdiffuser 2)."""
    spec = ObservationSpec("entities", (n, d), views)
    for size, expected in zip((SMALL, STANDARD, LARGE), counts, strict=True):
        if expected:
            assert count(plain_diffuser(spec, actions, size)) == expected


def test_schedule_of_five_steps() -> None:
    """The numbers of the specification (ecdiffuser 3)."""
    diffuser = make().diffuser
    alpha_bar = torch.tensor([0.89871, 0.64748, 0.34081, 0.094046, 0.000094])
    torch.testing.assert_close(diffuser.signal.square(), alpha_bar, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(diffuser.noise.square(), 1 - alpha_bar, atol=1e-5, rtol=1e-4)
    tables = {
        "mean_clean": [1, 0.75175, 0.57816, 0.46657, 0.30639],
        "mean_noisy": [0, 0.24389, 0.38799, 0.38222, 0.02865],
    }
    for name, expected in tables.items():
        expected = torch.tensor(expected).float()
        torch.testing.assert_close(getattr(diffuser, name), expected, atol=1e-5, rtol=1e-4)
    variance = torch.tensor([0, 0.08032, 0.25329, 0.52683, 0.90513])
    torch.testing.assert_close(diffuser.deviation.square(), variance, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", [SETS, PARTICLES])
def test_each_slot_is_equivariant_on_its_own(spec: ObservationSpec) -> None:
    """Entities of a view may change places in one slot alone: nothing else notices."""
    diffuser = make(spec).diffuser
    windows, t = make_windows(spec), torch.tensor([0, 1, 2, 3, 4, 0])
    n = spec.shape[0] // spec.views
    orders = []
    for shift in (1, 2, 0, 1):  # of each slot, the same in every view
        order = torch.arange(n).roll(shift)
        orders.append(torch.cat([order + n * view for view in range(spec.views)]))
    shuffled = torch.stack([windows.obs[:, j, p] for j, p in enumerate(orders)], dim=1)
    sets, actions = diffuser.denoiser(windows.obs, windows.action, t)
    other_sets, other_actions = diffuser.denoiser(shuffled, windows.action, t)
    torch.testing.assert_close(other_actions, actions, rtol=1e-3, atol=1e-3)
    for j in (1, 2):
        expected = sets[:, j - 1, orders[j]]
        torch.testing.assert_close(other_sets[:, j - 1], expected, rtol=1e-3, atol=1e-3)
    if spec.views > 1:  # but not across views
        crossed = windows.obs.roll(1, dims=2)
        assert not torch.allclose(diffuser.denoiser(crossed, windows.action, t)[1], actions)


def test_every_action_and_slot_modulates_its_own_slot() -> None:
    """With attention switched off, a noisy action reaches the tokens of its slot and no others."""
    denoiser = make().diffuser.denoiser
    for block in denoiser.blocks:
        torch.nn.init.zeros_(block.attention.out.weight)
    windows, t = make_windows(), torch.zeros(6).long()
    changed = windows.action.clone()
    changed[:, 1] += 1
    sets, actions = denoiser(windows.obs, windows.action, t)
    other_sets, other_actions = denoiser(windows.obs, changed, t)
    assert (actions != other_actions).any(dim=2).any(dim=0).tolist() == [False, True, False, False]
    assert (sets != other_sets).flatten(2).any(dim=2).any(dim=0).tolist() == [True, False]


def test_closed_gates_start_as_the_identity() -> None:
    for closed in (False, True):
        choices = {"predicts_noise": False, "closed_gates": closed}
        diffuser = WindowDiffuser(SPECS["entities"], 2, SMALL, 4, 5, **choices)
        block = diffuser.denoiser.blocks[0]
        x, condition = torch.randn(1, 4, 5, 2, 64), torch.randn(1, 4, 2, 64)
        assert torch.equal(block(x, condition=condition), x) == closed


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"predict": "epsilon"}, {"loss": "l2"}, {"loss_discount": 0.5}, {"action_weight": 2.0}],
)
def test_loss_by_hand(changes: dict) -> None:
    """Number by number over all slots, where the sets put back count as zero error."""
    agent, batch = make(**changes), make_windows()
    agent.obs_scaling.fit_limits(torch.arange(7.0) - 9, torch.arange(7.0) + 2)
    agent.action_scaling.fit_limits(torch.tensor([-1.0, -0.5]), torch.tensor([1.0, 0.8]))
    noise = agent.draw_noise(batch, torch.Generator().manual_seed(3))
    loss, metrics = agent.window_loss(batch, noise)
    t, eps = noise["t"], noise["eps"]

    betas = torch.tensor([0.10129, 0.27954, 0.47364, 0.72405, 0.999])
    alpha_bar = torch.cumprod(1 - betas, 0)[t]
    sets = (batch.obs - (torch.arange(7.0) - 3.5)) / 5.5
    actions = (batch.action - torch.tensor([0.0, 0.15])) / torch.tensor([1.0, 0.65])
    eps_sets = torch.zeros_like(sets)
    eps_sets[:, 1:3] = eps[:, : 2 * 21].view(6, 2, 3, 7)
    eps_actions = eps[:, 2 * 21 :].view(6, 4, 2)
    noisy_sets = sets.clone()
    for b in range(6):
        for j in (1, 2):
            noisy_sets[b, j] = alpha_bar[b].sqrt() * sets[b, j]
            noisy_sets[b, j] += (1 - alpha_bar[b]).sqrt() * eps_sets[b, j]
    noisy_actions = alpha_bar.sqrt()[:, None, None] * actions
    noisy_actions += (1 - alpha_bar).sqrt()[:, None, None] * eps_actions
    out_sets, out_actions = agent.diffuser.denoiser(noisy_sets, noisy_actions, t)
    of_noise = agent.settings.predict == "epsilon"
    predicted = (eps_sets if of_noise else sets).clone()
    predicted[:, 1:3] = out_sets
    power = 2 if agent.settings.loss == "l2" else 1
    set_error = (predicted - (eps_sets if of_noise else sets)).abs() ** power
    action_error = (out_actions - (eps_actions if of_noise else actions)).abs() ** power
    discount = [agent.settings.loss_discount**j for j in range(4)]
    weight = [d / (sum(discount) / 4) for d in discount]
    total = sum(weight[j] * set_error[:, j].sum() for j in range(4))
    weight[0] = agent.settings.action_weight
    total += sum(weight[j] * action_error[:, j].sum() for j in range(4))
    torch.testing.assert_close(loss, total / (6 * 4 * (2 + 21)), rtol=1e-3, atol=1e-5)
    parts = {
        "first_action": action_error[:, 0].mean(),
        "other_actions": action_error[:, 1:].mean(),
        "states": set_error[:, 1:3].mean(),
    }
    for name, expected in parts.items():
        torch.testing.assert_close(metrics[f"diffuser/{name}"], expected, rtol=1e-3, atol=1e-5)


def test_weights_of_the_published_setting() -> None:
    """48 particles of 10 features, 3 actions: 2,442 over the 2,415 numbers of a window."""
    agent = make(ObservationSpec("entities", (48, 10), views=2), horizon=5)
    sets = 48 * 10 * (agent.set_weight.sum() + 2)  # those put back weigh 1 each
    assert sets + 3 * agent.action_weight.sum() == 2442


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", ["x0", "epsilon"])
def test_a_network_that_knows_the_window_makes_the_sampler_return_it(predict, monkeypatch) -> None:
    """The sets of state and goal go into every step as they are."""
    agent, batch = make(predict=predict), make_windows()
    diffuser = agent.diffuser
    clean = diffuser.join(batch.obs[:, 1:-1], batch.action)
    seen = []

    def oracle(sets, actions, t):
        seen.append((sets[:, 0], sets[:, -1]))
        x = diffuser.join(sets[:, 1:-1], actions)
        step = int(t[0])
        noise = (x - diffuser.signal[step] * clean) / diffuser.noise[step]
        return diffuser.split(noise if predict == "epsilon" else clean)

    monkeypatch.setattr(diffuser.denoiser, "forward", oracle)
    noise = torch.randn(5, *clean.shape)
    state, goal = batch.obs[:, 0], batch.obs[:, -1]
    sample = diffuser.sample(state, goal, noise)
    torch.testing.assert_close(sample, clean, rtol=1e-4, atol=1e-4)
    assert len(seen) == 5
    assert all(torch.equal(s, state) and torch.equal(g, goal) for s, g in seen)


def test_samples_are_equivariant_in_the_order_of_entities() -> None:
    diffuser = make().diffuser
    batch, noise = make_windows(), torch.randn(5, 6, 2 * 21 + 8)
    state, goal, order = batch.obs[:, 0], batch.obs[:, -1], torch.tensor([2, 0, 1])
    sets, actions = diffuser.split(diffuser.sample(state, goal, noise))
    shuffled = [diffuser.split(n) for n in noise]
    noise = torch.stack([diffuser.join(s[:, :, order], a) for s, a in shuffled])
    other = diffuser.split(diffuser.sample(state[:, order], goal[:, order], noise))
    torch.testing.assert_close(other[0], sets[:, :, order], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other[1], actions, rtol=1e-3, atol=1e-3)


# --- learning -------------------------------------------------------------------------------------


def train_on(agent: ECDiffuser, steps: int, buffer: Buffer | None = None) -> list[torch.Tensor]:
    """Weights after each of so many updates."""
    draws = make_draws(buffer or make_buffer(agent.context.spec), wants=agent.wants)
    weights = []
    for step in range(1, steps + 1):
        batch, generator = draws(step)
        agent.update(batch, agent.draw_noise(batch, generator))
        weights.append(agent.learners["diffuser"].flat.detach().clone())
    return weights


def test_the_average_follows_the_weights_and_then_every_so_many_updates() -> None:
    """The weights themselves up to update 4; then a tenth of them at 6 and at 9."""
    expected = None
    for steps in range(1, 11):
        agent = make()
        weights = train_on(agent, steps)[-1]
        if steps < 4:
            expected = weights
        elif steps % 3 == 0:
            expected = 0.9 * expected + 0.1 * weights
        torch.testing.assert_close(agent.average_flat, expected, rtol=1e-5, atol=1e-6)


def test_shares_around_the_published_start_of_the_average() -> None:
    agent = make(ema_decay=0.995, ema_every=10, ema_start=2000)
    shares = [float(agent._share(torch.tensor(float(k)))) for k in (1999, 2000, 2001, 2009, 2010)]
    assert shares == pytest.approx([1, 0.005, 0, 0, 0.005])


def test_an_update_is_adam_without_clipping_at_its_own_rate() -> None:
    agent, twin = make(lr=3e-3), make(lr=3e-3)
    batch = make_windows()
    noise = agent.draw_noise(batch, torch.Generator().manual_seed(0))
    metrics = agent.update(batch, noise)
    adam = torch.optim.Adam(twin.diffuser.parameters(), lr=3e-3)
    twin.window_loss(batch, noise)[0].backward()
    norm = math.sqrt(sum(p.grad.square().sum() for p in twin.diffuser.parameters()))
    adam.step()
    assert metrics["diffuser/grad_norm"] == pytest.approx(norm, rel=1e-4)
    for one, two in zip(agent.diffuser.parameters(), twin.diffuser.parameters(), strict=True):
        assert torch.allclose(one, two, atol=2e-5)


def test_scalings_come_from_the_data_once() -> None:
    buffer, agent = make_buffer(), make()
    buffer.action[:, 1] = 0.25
    agent.prepare(buffer)
    scaled = agent.obs_scaling(buffer.obs).flatten(0, 1)
    torch.testing.assert_close(scaled.amin(0), -torch.ones(7))
    torch.testing.assert_close(scaled.amax(0), torch.ones(7))
    actions = agent.action_scaling(buffer.action)
    assert actions[:, 0].aminmax() == (-1, 1) and not actions[:, 1].any()
    ends = agent.action_scaling.inverse(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert ends[:, 1].tolist() == [-0.75, 1.25]  # a constant's limits
    agent.prepare(make_buffer(SETS))
    assert torch.equal(agent.action_scaling(buffer.action), actions)
    other = make(normalizer="standard")
    other.prepare(make_buffer())
    assert torch.equal(other.obs_scaling(buffer.obs), buffer.obs)
    z = other.action_scaling(make_buffer().action)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)
    assert torch.equal(Scaling(3)(torch.ones(3)), torch.ones(3))


def test_it_learns_which_way_the_goal_lies() -> None:
    """One entity on a line moves one step at each action: 1, -1 or, at the goal, 0."""
    torch.manual_seed(0)
    spec = ObservationSpec("entities", (1, 1))
    settings = settings_of("ecdiffuser", lr=3e-3, n_layers=1, goal="final", horizon=3)
    agent = ECDiffuser(settings, context(spec))
    way = torch.tensor([1.0, -1.0]).repeat(8).repeat_interleave(9)
    place = way * torch.arange(9).repeat(16)
    buffer = make_buffer(spec)
    buffer.obs, buffer.action = place.view(-1, 1, 1) / 8, way[:, None].repeat(1, 2)
    buffer.episodes = Episodes(9 * torch.arange(16), torch.full((16,), 9))
    agent.prepare(buffer)
    train_on(agent, 200, buffer)
    obs, goal = torch.zeros(2, 1, 1), torch.tensor([1.0, -1.0]).view(2, 1, 1)
    plan = agent.plan(obs, goal, generators([0, 1]))
    assert plan.shape == (2, 1, 2)
    assert plan[0].min() > 0.7 and plan[1].max() < -0.7


# --- acting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("exe_steps", [1, 3])
@pytest.mark.parametrize("spec", [SETS, PARTICLES])
def test_an_environment_acts_alike_alone_and_among_others(spec, exe_steps) -> None:
    """Also while others are at another place of their plans, as episodes that began later are."""
    size, length = 5, 5
    agent = make(spec, exe_steps=exe_steps)
    g = torch.Generator().manual_seed(0)
    obs = torch.randn(length + size, size, *spec.shape, generator=g)
    goal = torch.randn(size, *spec.shape, generator=g)

    def episode(members: list[int]) -> dict[int, list[torch.Tensor]]:
        """Actions of these environments; environment i begins at time i."""
        memory = {i: agent.begin(goal[i]) for i in members}
        draws = dict(zip(members, generators(members), strict=True))
        actions = {i: [] for i in members}
        for time in range(length + size):
            live = [i for i in members if i <= time < i + length]
            if not live:
                continue
            step = torch.tensor([time - i for i in live])
            memories = torch.stack([memory[i] for i in live])
            rows = torch.tensor(live)
            own = [draws[i] for i in live]
            chosen, kept = act(agent, obs[step, rows], goal[rows], step, memories, own)
            for row, i in enumerate(live):
                memory[i] = kept[row]
                actions[i].append(chosen[row])
        return actions

    company = episode(list(range(size)))
    for i in (0, 2, 4):
        alone = episode([i])[i]
        assert len(alone) == length
        assert all(torch.equal(a, b) for a, b in zip(alone, company[i], strict=True))


def test_plans_are_executed_and_then_made_anew() -> None:
    agent = make(exe_steps=2)
    obs, goal = torch.randn(2, 5, 3, 7).unbind()
    memory, own = None, generators(list(range(5)))
    plans, actions = [], []
    for step in range(4):
        action, memory = act(agent, obs, goal, [step] * 5, memory, own)
        assert action.shape == (5, 2) and action.abs().max() <= 1
        plans.append(memory["plan"])
        actions.append(action)
    assert torch.equal(plans[0], plans[1]) and torch.equal(plans[2], plans[3])
    assert not torch.equal(plans[0], plans[2])  # new noise
    assert torch.equal(plans[0], torch.stack(actions[:2], dim=1))
    assert torch.equal(agent.pursued(memory[0], goal[0]), goal[0])
    more = torch.randn(2, 5, 8, 7).unbind()  # entities than it was made for
    assert agent.plan(*more, own).shape == (5, 2, 2)


def test_actions_stay_in_the_range_of_the_data_and_come_from_the_average() -> None:
    agent = make()
    agent.action_scaling.fit_limits(torch.tensor([-0.2, 0.1]), torch.tensor([0.3, 0.4]))
    obs, goal = torch.randn(2, 40, 3, 7).unbind()
    plan = agent.plan(obs, goal, generators(list(range(40))))[:, 0]
    bounds = torch.tensor([-0.2, 0.1]), torch.tensor([0.3, 0.4])
    torch.testing.assert_close(plan.clamp(*bounds), plan)
    assert any(torch.isclose(plan, bound).any() for bound in bounds)  # some had gone beyond
    torch.nn.init.zeros_(agent.learners["diffuser"].flat.data)
    assert torch.equal(agent.plan(obs, goal, generators(list(range(40))))[:, 0], plan)


def test_evaluations_are_the_same_however_episodes_are_spread() -> None:
    alone, company = (
        run_fake(
            envs, workers, agent=make(ObservationSpec("entities", SHAPE), exe_steps=3), videos=0
        )
        for envs, workers in ((1, 1), (4, 2))
    )
    assert alone.rows == company.rows
    assert len({row["episode_reward"] for row in alone.rows} | {None}) > 1


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def settings(tiny_config, monkeypatch):
    """Composes settings of a small training whose evaluations are made up."""
    monkeypatch.setattr(evaluation_run, "evaluate", lambda *_, **__: result(5))
    own = ("agent=ecdiffuser", *TINY, "ecdiffuser.ema_start=5", "ecdiffuser.batch_size=8")
    return lambda *overrides: tiny_config(*RHYTHM, *own, *overrides)


def test_a_crash_leaves_no_trace_and_a_run_may_start_from_another(settings) -> None:
    whole, broken = settings("run_name=whole"), settings("run_name=broken")
    train.run(whole)
    interrupt(broken, lambda patch: fail_at(patch, ECDiffuser, "update", 11))
    train.run(broken)
    assert_same_run(folder_of(whole), folder_of(broken))
    start = f"checkpoint={folder_of(whole)}"
    train.run(settings("run_name=more", "train_from_checkpoint=true", start, "steps=4"))


def test_what_rewards_are_made_of_is_not_even_read(settings) -> None:
    config = settings()
    world = make_world(config)
    parts = config, world, observe(config, world), torch.device("cpu")
    buffer, _ = load_training_data(*parts, rewards=False)
    assert buffer.reward_rows == {} and buffer.reward is None
    assert load_training_data(*parts)[0].reward_rows.keys() == {"qpos"}
    read = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "load", lambda self, names, **_: read.append(names))
        with pytest.raises(TypeError):  # nothing was loaded
            train.run(config)
    assert read == [["actions"]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["obs=state"], r"agent=ecdiffuser generates sets of entities; use obs=ec_state, ec_state"),
        (["obs=rgb"], r"agent=ecdiffuser generates sets of entities; use obs=ec_state, ec_state_"),
        (
            ["ecdiffuser.exe_steps=5"],
            r"ecdiffuser\.exe_steps=5 is too large; allowed: at most .* 4",
        ),
        (["ecdiffuser.n_head=3"], r"ecdiffuser\.embed_dim=8 does not fit ecdiffuser\.n_head=3; "),
        (
            ["p_trajgoal_policy=0.5", "p_randgoal_policy=0.5"],
            r"goals of other episodes make no sense; set p_randgoal_policy=0 or ecdiffuser\.goal=f",
        ),
        (
            ["parallel_update=always"],
            r"parallel_update=always is not possible: agent=ecdiffuser ha",
        ),
        (["subgoal_factor_eval=true"], r"needs an agent that pursues subgoals"),
    ],
)
def test_what_is_not_possible_is_one_line(overrides, message, settings) -> None:
    with pytest.raises(UserError, match=message) as error:
        train.run(settings(*overrides))
    assert "\n" not in str(error.value)


def test_flat_and_image_families_refuse() -> None:
    for kind in ("flat", "image"):
        with pytest.raises(UserError, match="use obs=ec_state, ec_state_gen or dlp"):
            make(SPECS[kind])


def test_the_published_setting_is_the_default() -> None:
    s = compose(["agent=ecdiffuser"]).agent_settings
    assert (s.horizon, s.exe_steps, s.n_diffusion_steps, s.n_layers) == (5, 1, 5, 6)
    assert (s.embed_dim, s.h_dim, s.n_head, s.dropout) == (256, 256, 8, 0.0)
    assert (s.lr, s.batch_size, s.grad_clip_norm) == (8e-5, 64, None)
    assert (s.ema_decay, s.ema_every, s.ema_start) == (0.995, 10, 2000)
    assert (s.action_weight, s.predict, s.loss, s.normalizer) == (10, "x0", "l1", "limits")


def test_its_own_batch_size_counts(settings) -> None:
    config, buffer = settings("batch_size=512", "parallel_update=auto"), make_buffer()
    for own, size in ((None, 512), (32, 32)):
        assert make_updates(config, make(batch_size=own), buffer, {}).draws.batch_size == size
