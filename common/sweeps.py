"""Jobs of a sweep (`-m`) that submitit starts, on a SLURM cluster or as processes of this machine.

Hydra's plugin `hydra-submitit-launcher` submits them and waits for all. A job of several tasks is
one training that shares its batches, as if `torchrun` had started it.
"""

import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.errors import UserError, one_line_errors

CHOICE = "hydra/launcher=submitit_"
LIMIT = "hydra.launcher.timeout_min="


def uses_submitit(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for submitit. Raises `UserError` for what cannot work."""
    from hydra._internal.utils import get_args_parser

    parsed, _ = get_args_parser().parse_known_args(arguments)
    if parsed.multirun and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("-m starts one run after the other, torchrun one run; use either")
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
def launching(root: Path) -> Iterator[None]:
    """Submit jobs in the block and wait for them; ends the process with one line if one failed.

    Args:
        root: folder of this code, which jobs import.
    """
    from hydra.errors import CompactHydraException
    from submitit.core.utils import UncompletedJobError

    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # it hands errors on instead of printing them
    with one_line_errors():
        try:
            yield
        except (CompactHydraException, UncompletedJobError) as error:
            raise UserError(" ".join(str(error).split())[:500]) from error


@contextlib.contextmanager
def job(script: str) -> Iterator[None]:
    """What one job does, in its own process: errors go to its log, and to whoever launched it.

    Args:
        script: the launched one, so that records of the job hold a command that can be repeated.
    """
    from hydra.core.hydra_config import HydraConfig
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    sys.argv = [script, *HydraConfig.get().overrides.task]
    if JobEnvironment().num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise
    except SystemExit as end:
        raise UserError(
            f"it was stopped (exit code {end.code}); the same command continues"
        ) from end
    except Exception as error:  # a fault of the code: only its text reaches the launcher
        traceback.print_exc()
        raise UserError(f"{type(error).__name__}: {error}") from error
