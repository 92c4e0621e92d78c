"""Training of an encoder on images, with validations, pictures and exports."""

import math
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from common.foundation.device import seeded_generator
from common.foundation.errors import UserError
from common.foundation.files import atomic_write
from common.foundation.messages import tell
from common.foundation.progress import Bar
from common.runs import checkpoint as files
from common.runs.identity import Sources
from common.settings.config import Config
from common.training.loop import Loop, Rhythm, Source, Sums, add
from common.training.team import Team
from visual_encoders.base import EncoderModel, to_float
from visual_encoders.checkpoints import save_folder
from visual_encoders.images import Batches, ValidationBatches, read_ahead

BETAS = (0.9, 0.999)  # of Adam
TRAINING, VALIDATION = 0, 1  # streams of random numbers


class EncoderUpdates:
    """Steps of Adam, each on this process's share of a batch."""

    def __init__(self, config: Config, model: EncoderModel, batches: Batches, team: Team) -> None:
        self.config, self.settings, self.team = config, config.encoder, team
        self.model, self.batches = model, batches
        self.per_epoch = self.settings.updates_per_epoch or batches.per_pass
        self.optimiser = torch.optim.AdamW(
            model.network.parameters(),
            lr=self.settings.lr,
            betas=BETAS,
            eps=self.settings.adam_eps,
            weight_decay=self.settings.weight_decay,
        )

    def start(self, done: int, steps: int, sums: Sums) -> Self:
        """Begin to read the images of the updates after `done`, and to add to `sums`."""
        self._parallel, self._sums = self.team.wrap(self.model), sums
        pin = self.team.device.type == "cuda"
        numbers = range(done, steps)
        self._images = read_ahead(self.batches, numbers, self.settings.read_workers, pin)
        return self

    def run(self, step: int) -> None:
        """Update `step`, counted from 1."""
        number, epoch = step - 1, (step - 1) // self.per_epoch
        lr = self.model.learning_rate(self.settings.lr, epoch) * self.settings.lr_decay**epoch
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.model.train()
        self.optimiser.zero_grad()
        images = to_float(next(self._images), self.team.device)
        generator = draws_of(self.config, self.team, TRAINING, number)
        loss, metrics = self._parallel(images, epoch, generator)
        loss.backward()
        self.optimiser.step()
        add(self._sums, metrics)

    def sums(self) -> Sums:
        """Sums of the metrics since `reset`, a mean over processes, all of which must ask."""
        return self.team.mean(self._sums)

    def reset(self) -> None:
        """Start the sums anew."""
        self._sums.clear()

    def close(self) -> None:
        """Let go of the reading processes."""
        del self._images


class EncoderTrainer(Loop):
    """One training run of an encoder, in whose epochs a validation comes last.

    The folder is also an encoder's checkpoint folder: its `best.pth` has the weights of the epoch
    with the lowest validation loss, which draws the same random numbers each time.
    """

    evaluation_log, speed, saves_evaluated = "valid", "images_per_second", True
    remedy = "Lower encoder.lr, or look at the data"
    shown = {"loss": "loss", "psnr": "psnr"}  # noqa: RUF012

    def __init__(
        self,
        config: Config,
        model: EncoderModel,
        batches: Batches,
        validation: ValidationBatches,
        folder: Path,
        team: Team,
        data: Sources | None = None,
    ) -> None:
        self.data = data  # what it learns from
        self.model, self.validation = model.to(team.device), validation
        self.steps = EncoderUpdates(config, self.model, batches, team)
        self.best, self.size = math.inf, config.encoder.batch_size
        epoch, epochs = self.steps.per_epoch, config.encoder_settings.epochs
        often = config.encoder
        rhythm = Rhythm(epochs * epoch, often.log_freq, epoch, often.checkpoint_freq)
        super().__init__(config, rhythm, folder, team, Source())

    @property
    def _epochs(self) -> float:
        return self.step / self.rhythm.evaluate

    def _make_updates(self) -> EncoderUpdates:
        return self.steps.start(self.step, self.rhythm.steps, self.totals)

    def _figures(self, sums: Sums, count: int) -> dict[str, float]:
        means = {name: total / count for name, total in sums.items()}
        lr = self.steps.optimiser.param_groups[0]["lr"]
        return {"epoch": self._epochs, "lr": lr, **self.model.figures(means)}

    def _problems(self, figures: Mapping[str, float]) -> dict[str, str]:
        return self.model.problems(figures)

    @torch.no_grad()
    def _evaluate(self, stopped: Callable[[], bool]) -> dict[str, float] | None:
        """Means over the validation images, of which each process takes its share."""
        self.model.eval()
        sums: Sums = {"images": torch.zeros((), device=self.team.device)}
        count, main = len(self.validation), self.team.is_main
        pin = self.team.device.type == "cuda"
        read = read_ahead(self.validation, range(count), self.config.encoder.read_workers, pin)
        bar = Bar(read, "validate", total=count, disable=not main, leave=False)
        for number, images in enumerate(bar):
            if self.team.any(stopped()):
                return None
            if len(images):
                generator = draws_of(self.config, self.team, VALIDATION, number)
                epoch = self.step // self.rhythm.evaluate
                _, metrics = self.model(to_float(images, self.team.device), epoch, generator)
                add(sums, {name: value * len(images) for name, value in metrics.items()})
                sums["images"] += len(images)
        means = self.team.mean(sums)
        images = means.pop("images")
        figures = self.model.figures({name: total / images for name, total in means.items()})
        if not math.isfinite(figures["loss"]):
            raise UserError(f"the validation loss is {figures['loss']}; lower encoder.lr")
        return {"epoch": self._epochs, **figures} if main else None

    def _keep(self, figures: dict[str, float]) -> None:
        """Draw what the encoder makes of some images; export it if none was better."""
        tell(f"epoch {self._epochs:g}: validation loss {figures['loss']:.5g}")
        self._draw()
        if figures["loss"] < self.best:
            self.best = figures["loss"]
            hparams, weights = self.model.export()
            origin = dict(self.steps.batches.frames.origin)
            save_folder(self.folder, hparams | origin, weights)

    @torch.no_grad()
    def _draw(self) -> None:
        """A picture of some validation images, and of what the encoder makes of them below."""
        examples = self.validation.examples(self.config.encoder.num_pictures)
        if len(examples):
            self.model.eval()
            rows = self.model.pictures(to_float(examples, self.team.device)).values()
            path = self.folder / "pictures" / f"epoch_{round(self._epochs):04d}.png"
            path.parent.mkdir(exist_ok=True)
            save_picture(path, torch.stack(list(rows)))

    def _write(self, path: Path, sums: Sums) -> None:
        network = dict(self.model.network.state_dict())
        for name, weight in network.items():  # the gradient of a finite loss may have broken it
            if not torch.isfinite(weight).all():
                raise self._not_finite(f"{name} is not finite after update {self.step}")
        state = {"network": network, "adam": self.steps.optimiser.state_dict(), "sums": sums}
        tensors, structure = files.flatten(state)
        meta = {"step": self.step, "validated": self.evaluated, "best": self.best}
        meta |= {"logged": self.logged, "structure": structure, "data": self.data}
        files.save(path, tensors, meta)

    def _restore(self) -> None:
        tensors, meta = files.load(self.last)
        self.logged = meta.get("logged", {})  # older checkpoints have none
        state = files.unflatten(tensors, meta["structure"])
        self.model.network.load_state_dict(state["network"])
        self.steps.optimiser.load_state_dict(state["adam"])
        self.totals = {name: t.to(self.team.device) for name, t in state["sums"].items()}
        self.step, self.evaluated, self.best = meta["step"], meta["validated"], meta["best"]


def draws_of(config: Config, team: Team, stream: int, number: int) -> torch.Generator:
    """Random numbers of a batch; torch's own generator, which dropout uses, follows them."""
    generator = seeded_generator(team.device, config.seed, stream, number, team.rank)
    torch.manual_seed(generator.initial_seed())
    return generator


def save_picture(path: Path, rows: Tensor) -> None:
    """Write pictures (R, n, 3, S, S) in [0, 1] as one PNG of R rows and n columns."""
    count, across, _, side, _ = rows.shape
    grid = rows.permute(0, 3, 1, 4, 2).reshape(count * side, across * side, 3)
    pixels = (grid.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
