"""The training loop of every encoder: batches in, checkpoints, metrics and pictures out."""

import math
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common.foundation.device import seeded_generator
from common.foundation.errors import UserError
from common.foundation.files import atomic_write
from common.foundation.processes import stop_on_signal
from common.runs import checkpoint as files
from common.runs.metrics import MetricsLog, Tracker
from common.settings.config import Config
from common.training.diagnosis import Watch
from common.training.team import Team
from common.training.updates import Sums, add
from visual_encoders.base import EncoderModel
from visual_encoders.checkpoints import save_folder
from visual_encoders.images import Batches, ValidationBatches, read_ahead, to_float


def save_picture(path: Path, rows: Tensor) -> None:
    """Write pictures (R, n, 3, S, S) in [0, 1] as one PNG of R rows and n columns."""
    from PIL import Image

    count, across, _, side, _ = rows.shape
    grid = rows.permute(0, 3, 1, 4, 2).reshape(count * side, across * side, 3)
    pixels = (grid.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


BETAS = (0.9, 0.999)  # of Adam
TRAINING, VALIDATION = 0, 1  # streams of random numbers


class EncoderTrainer:
    """One training run of an encoder in its folder.

    On CPU a run is a pure function of its settings, however often it is stopped and started again:
    order of the images and random draws depend on the seed and the number of the update alone, and
    the `last` checkpoint holds parameters, moments and the running sums of the metrics.

    The folder is also an encoder's checkpoint folder: its `best.pth` has the weights of the epoch
    with the lowest validation loss, which draws the same random numbers each time.
    """

    def __init__(
        self,
        config: Config,
        model: EncoderModel,
        batches: Batches,
        validation: ValidationBatches,
        folder: Path,
        team: Team,
    ) -> None:
        self.config, self.settings, self.folder, self.team = config, config.encoder, folder, team
        self.batches, self.validation = batches, validation
        self.model = model.to(team.device)
        self.optimiser = torch.optim.AdamW(
            model.network.parameters(),
            lr=self.settings.lr,
            betas=BETAS,
            eps=self.settings.adam_eps,
            weight_decay=self.settings.weight_decay,
        )
        self.epoch_updates = self.settings.updates_per_epoch or batches.per_pass
        self.updates = config.encoder_settings.epochs * self.epoch_updates
        self.step = 0
        self.validated = 0  # the update of the newest validation
        self.best = math.inf  # validation loss of the exported weights
        self.sums: Sums = {}  # of metrics not yet logged, of this process
        self.logged: dict[str, int] = {}  # checksums of the metrics files at the `last` checkpoint
        if self.last.exists():
            self._restore()
        self.saved = self.step, self.validated  # of the `last` checkpoint
        self.parallel = team.wrap(self.model)
        if team.is_main:
            self.train_log = self._open_log("train", self.step)
            self.valid_log = self._open_log("valid", self.validated)
            self.time_log = MetricsLog(folder / "timing.csv", self.step or None)
            self.tracker = Tracker(config, folder, config.raw)
            self.watch = Watch(folder)
            (folder / "pictures").mkdir(exist_ok=True)

    def _open_log(self, name: str, step: int) -> MetricsLog:
        """The metrics file `name` with its rows up to `step`, those of the checkpoint."""
        return MetricsLog(self.folder / f"{name}.csv", step or None, self.logged.get(name))

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.updates and not self._validation_due

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next update belongs to, from 0."""
        return self.step // self.epoch_updates

    def run(self) -> int | None:
        """Train to the last epoch; returns the signal that stopped it before, if one did."""
        bar = self._bar(None, "train", total=self.updates, initial=self.step, unit=" updates")
        with stop_on_signal() as received, bar:
            stopped = self._end_epoch_if_due(received)
            began, mark = time.perf_counter(), self.step  # of the stretch whose speed is measured
            for images in self._read(self.batches, range(self.step, self.updates)):
                if stopped:
                    break
                self._update(images)
                bar.update()
                if self.step % self.settings.log_freq == 0:
                    now = time.perf_counter()
                    bar.set_postfix(self._log(now - began, self.step - mark))
                    began, mark = now, self.step
                paused = time.perf_counter()
                stopped = self._end_epoch_if_due(received) or self._stop(received)
                if self.step % self.settings.checkpoint_freq == 0:
                    self._save_last()
                began += time.perf_counter() - paused
            self._save_last()
        if self.team.is_main:
            self.tracker.close()
        return None if self.finished else next(iter(received), None)

    def _update(self, images: Tensor) -> None:
        """One step of Adam on this process's share of a batch, uint8."""
        lr = self.model.learning_rate(self.settings.lr, self.epoch)
        lr *= self.settings.lr_decay**self.epoch
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.model.train()
        self.optimiser.zero_grad()
        generator = self._draws(TRAINING, self.step)
        loss, metrics = self.parallel(to_float(images, self.team.device), self.epoch, generator)
        loss.backward()
        self.optimiser.step()
        self.step += 1
        add(self.sums, metrics)

    def _draws(self, stream: int, number: int) -> torch.Generator:
        """Random numbers of a batch; torch's own generator, which dropout uses, follows them."""
        generator = seeded_generator(
            self.team.device, self.config.seed, stream, number, self.team.rank
        )
        torch.manual_seed(generator.initial_seed())
        return generator

    def _read(self, batches: Any, numbers: range) -> Iterator[Tensor]:
        pin = self.team.device.type == "cuda"
        return read_ahead(batches, numbers, self.settings.read_workers, pin)

    def _bar(self, items: Any, name: str, **options: Any) -> tqdm:
        """A progress bar in the main process."""
        return tqdm(items, name, disable=not self.team.is_main, leave=items is None, **options)

    def _stop(self, received: list[int]) -> bool:
        """Whether a signal has come to any process, asked at times that all of them know."""
        asked = self.team.size == 1 or self.step % self.settings.log_freq == 0
        return asked and self.team.any(bool(received))

    # --- records ------------------------------------------------------------------------------

    def _log(self, seconds: float, updates: int) -> dict[str, str]:
        """Write the means since the last row; returns what the progress bar shows."""
        count = self.step % self.settings.log_freq or self.settings.log_freq
        means = {name: total / count for name, total in self._checked_sums().items()}
        self.sums = {}
        if not self.team.is_main:
            return {}
        figures = self.model.figures(means)
        self.watch.report(self.step, self.model.problems(figures))
        lr = self.optimiser.param_groups[0]["lr"]
        self.train_log.write(self.step, {"epoch": self._epochs, "lr": lr, **figures})
        speed = updates * self.settings.batch_size / seconds
        self.time_log.write(self.step, {"seconds": seconds, "images_per_second": speed})
        self.tracker.log(self.step, figures | {"time/images_per_second": speed})
        return {"loss": f"{figures['loss']:.4g}", "psnr": f"{figures['psnr']:.1f}"}

    @property
    def _epochs(self) -> float:
        return self.step / self.epoch_updates

    def _checked_sums(self) -> Sums:
        """Sums of the metrics, a mean over processes; raises `UserError` if one is not finite."""
        sums = self.team.mean(self.sums)
        broken = [name for name, total in sums.items() if not torch.isfinite(total).all()]
        if broken:
            held = f"{self.last} holds an earlier state. " if self.last.exists() else ""
            raise UserError(
                f"{', '.join(broken[:3])} not finite before update {self.step}. {held}"
                "Lower encoder.lr, or look at the data"
            )
        return sums

    # --- end of an epoch ----------------------------------------------------------------------

    @property
    def _validation_due(self) -> bool:
        return self.step > 0 and self.step % self.epoch_updates == 0 and self.validated != self.step

    def _end_epoch_if_due(self, received: list[int]) -> bool:
        """Validate, export, draw and save after an epoch; returns whether a signal broke it off.

        It is then done first thing after the restart.
        """
        if not self._validation_due:
            return False
        figures = self._validate(received)
        if figures is None:
            return True
        self.validated = self.step
        if self.team.is_main:
            self.valid_log.write(self.step, {"epoch": self._epochs, **figures})
            self.tracker.log(self.step, {f"valid/{name}": v for name, v in figures.items()})
            tqdm.write(f"epoch {self._epochs:g}: validation loss {figures['loss']:.5g}")
            self._draw()
        if figures["loss"] < self.best:
            self.best = figures["loss"]
            if self.team.is_main:
                hparams, weights = self.model.export()
                save_folder(self.folder, hparams | dict(self.batches.frames.origin), weights)
        self._save_last()
        return False

    @torch.no_grad()
    def _validate(self, received: list[int]) -> dict[str, float] | None:
        """Means over the validation images, None if a signal came."""
        self.model.eval()
        sums: Sums = {"images": torch.zeros((), device=self.team.device)}
        numbers = range(len(self.validation))
        batches = self._read(self.validation, numbers)
        for number, images in enumerate(self._bar(batches, "validate", total=len(numbers))):
            if self.team.any(bool(received)):
                return None
            if len(images):
                generator = self._draws(VALIDATION, number)
                inputs = to_float(images, self.team.device)
                _, metrics = self.model(inputs, self.epoch, generator)
                add(sums, {name: value * len(images) for name, value in metrics.items()})
                sums["images"] += len(images)
        means = self.team.mean(sums)
        count = means.pop("images")
        figures = self.model.figures({name: total / count for name, total in means.items()})
        if not math.isfinite(figures["loss"]):
            raise UserError(f"the validation loss is {figures['loss']}; lower encoder.lr")
        return figures

    @torch.no_grad()
    def _draw(self) -> None:
        """A picture of some validation images, and of what the encoder makes of them below."""
        examples = self.validation.examples(self.settings.num_pictures)
        if not len(examples):
            return
        self.model.eval()
        rows = self.model.pictures(to_float(examples, self.team.device)).values()
        name = f"epoch_{round(self._epochs):04d}.png"
        save_picture(self.folder / "pictures" / name, torch.stack(list(rows)))

    # --- state --------------------------------------------------------------------------------

    def _save_last(self) -> None:
        """Write everything that the run needs to go on, unless that is there already."""
        if self.saved == (self.step, self.validated):
            return
        sums = self._checked_sums()
        if self.team.is_main:
            network = dict(self.model.network.state_dict())
            self._check_network(network)
            state = {
                "network": network,
                "adam": self.optimiser.state_dict(),
                "sums": sums,
            }
            tensors, structure = files.flatten(state)
            logged = {"train": self.train_log.checksum, "valid": self.valid_log.checksum}
            meta = {"step": self.step, "validated": self.validated, "best": self.best}
            meta["logged"] = logged
            files.save(self.last, tensors, {**meta, "structure": structure})
        self.saved = self.step, self.validated

    def _check_network(self, network: dict[str, Tensor]) -> None:
        """Raise `UserError` for weights that the gradient of a finite loss has broken."""
        broken = [name for name, weight in network.items() if not torch.isfinite(weight).all()]
        if broken:
            held = f"{self.last} holds an earlier state. " if self.last.exists() else ""
            raise UserError(
                f"{broken[0]} is not finite after update {self.step}. {held}Lower encoder.lr, or "
                "look at the data"
            )

    def _restore(self) -> None:
        """Go back to the `last` checkpoint."""
        tensors, meta = files.load(self.last)
        self.logged = meta.get("logged", {})  # older checkpoints have none
        state = files.unflatten(tensors, meta["structure"])
        self.model.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["adam"])
        self.sums = {name: t.to(self.team.device) for name, t in state["sums"].items()}
        self.step, self.validated, self.best = meta["step"], meta["validated"], meta["best"]
