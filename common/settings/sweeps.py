"""Jobs of sweeps: all of them run, and what failed is listed at the end."""

import contextlib
import importlib.util
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

from common.foundation.errors import UserError, one_line_errors, show_error, user_error
from common.foundation.messages import tell
from common.foundation.processes import signals_blocked

CHOICE = "hydra/launcher=submitit_"
LIMIT = "hydra.launcher.timeout_min="
POLL = 0.1  # seconds


class Sweep:
    """The jobs of a sweep and which of them failed; a context manager around them all.

    At the end, which a signal may bring, it lists the failures; without a signal they end the
    script with exit code 2.
    """

    def __init__(self) -> None:
        self.jobs = 0
        self._failures: list[str] = []

    @contextlib.contextmanager
    def job(self) -> Iterator[None]:
        """One job, in this process, whose error is shown and noted."""
        from hydra.core.hydra_config import HydraConfig

        self.jobs += 1
        try:
            yield
        except Exception as error:  # whatever it is, the next job begins
            self.note(HydraConfig.get().overrides.task, shown(error))

    def note(self, overrides: Sequence[str], error: UserError) -> None:
        """Note that the job with these overrides failed."""
        self._failures.append(f"{' '.join(overrides)}: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._failures:
            return
        heading = f"{len(self._failures)} of {self.jobs} jobs failed:"
        print(heading, *self._failures, sep="\n  ", file=sys.stderr)
        if kind is None:
            raise SystemExit(2)


def shown(error: Exception) -> UserError:
    """Show an error, with the traceback of a fault of the code, and return it as one line."""
    mistake = user_error(error)
    if mistake is None:
        traceback.print_exc()
        mistake = UserError(f"{type(error).__name__}: {error}")
    show_error(mistake)
    return mistake


def is_sweep(arguments: Sequence[str]) -> bool:
    """True if a command line asks for several runs; raises `UserError` under torchrun."""
    multirun = _parsed(arguments).multirun
    if multirun and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("-m starts one run after the other, torchrun one run; use either")
    return multirun


def _parsed(arguments: Sequence[str]) -> Any:
    from hydra._internal.utils import get_args_parser

    return get_args_parser().parse_known_args(arguments)[0]


def uses_submitit(arguments: Sequence[str]) -> bool:
    """True if a command line asks for submitit; raises `UserError` for what cannot work."""
    parsed = _parsed(arguments)
    chosen = next((text for text in parsed.overrides if text.startswith(CHOICE)), None)
    if chosen is None:
        return False
    if not parsed.multirun:
        raise UserError(f"{chosen} is for sweeps; add -m")
    if importlib.util.find_spec("submitit") is None or not _plugin_installed():
        raise UserError(f"{chosen} needs a package: pip install hydra-submitit-launcher==1.2.0")
    if not any(text.startswith(LIMIT) for text in parsed.overrides):
        raise UserError(f"submitit would end each job after an hour; add {LIMIT}MINUTES")
    return True


def _plugin_installed() -> bool:
    try:
        return importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


@contextlib.contextmanager
def launching(root: Path, sweep: Sweep) -> Iterator[None]:
    """Submit jobs in the block and wait for them all.

    A signal stops those of this machine, which save, and ends the process.

    Args:
        root: folder of this code, which jobs import.
        sweep: hears which jobs failed.
    """
    import submitit
    from hydra.errors import CompactHydraException

    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # it hands errors on instead of printing them
    jobs: list[SubmittedJob] = []
    submit, handler = submitit.AutoExecutor.map_array, signal.signal(signal.SIGTERM, _stop)

    def submit_watched(*arguments: Any) -> list[SubmittedJob]:
        with signals_blocked({signal.SIGINT}):  # Ctrl-C is for this process, which stops them
            jobs.extend(SubmittedJob(job, sweep) for job in submit(*arguments))
        sweep.jobs = len(jobs)
        return jobs

    submitit.AutoExecutor.map_array = submit_watched  # what Hydra's plugin submits by
    with one_line_errors():
        try:
            yield
        except CompactHydraException as error:
            raise UserError(" ".join(str(error).split())[:500]) from error
        except (KeyboardInterrupt, SystemExit):
            stop_jobs([watched.job for watched in jobs])
            raise
        finally:
            submitit.AutoExecutor.map_array = submit
            signal.signal(signal.SIGTERM, handler)


class SubmittedJob:
    """A job of submitit's whose failure does not end the waiting for the others."""

    def __init__(self, job: Any, sweep: Sweep) -> None:
        self.job, self._sweep = job, sweep

    def results(self) -> list[Any]:
        """Wait for the job: its outcomes, as Hydra's plugin expects them of one without errors."""
        from hydra.core.utils import JobReturn, JobStatus

        try:
            for outcome in self.job.results():
                outcome.return_value  # noqa: B018  raises what the job raised
        except UserError as error:
            self._note(error)
        except Exception as error:  # of submitit: the job was killed, or ended before its time
            self._note(UserError(" ".join(str(error).split())[:500]))
        return [JobReturn(status=JobStatus.COMPLETED)]

    def _note(self, error: UserError) -> None:
        show_error(error)
        self._sweep.note(self.job.submission().args[0], error)


def stop_jobs(jobs: Sequence[Any]) -> None:
    """Stop jobs of this machine and wait until they have saved; say that others go on."""
    from submitit.local.local import LocalJob

    running = [job for job in jobs if not job.done()]
    here = [job for job in running if isinstance(job, LocalJob)]
    for job in here:
        os.kill(int(job.job_id), signal.SIGTERM)
    while not all(job.done() for job in here):
        time.sleep(POLL)
    if queued := [job.job_id for job in running if job not in here]:
        tell(f"these jobs go on, to be ended by scancel: {' '.join(queued)}")


def _stop(number: int, frame: FrameType | None = None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def submitted_job(script: str) -> Iterator[None]:
    """One job in its own process: errors go to its log, and to whoever launched it.

    Args:
        script: the launched one, so that records of the job hold a command that can be repeated.
    """
    from hydra.core.hydra_config import HydraConfig
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    sys.argv = [script, *HydraConfig.get().overrides.task]
    environment = JobEnvironment()
    if environment.cluster == "local":  # submitit lets the signal pass, which SLURM sends, too
        signal.signal(signal.SIGTERM, _stop)
    if environment.num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    try:
        yield
    except SystemExit as end:
        raise UserError(
            f"it was stopped (exit code {end.code}); the same command continues"
        ) from end
    except Exception as error:  # its text alone reaches the launcher
        raise shown(error) from error
