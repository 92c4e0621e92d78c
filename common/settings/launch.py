"""Entry points of the scripts: one run, sweeps, and jobs that submitit starts."""

import contextlib
import functools
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError, one_line_errors, show_crashes
from common.settings.config import ROOT, Config, known_keys, parse, read_yaml
from common.settings.overrides import check_arguments
from common.settings.schema import SettingError


def hydra_main(run: Callable[[Config], None]) -> Callable[[], None]:
    """Return the entry point of a script: read the command line, check it, call `run`.

    A mistake of the user ends the script with one line on stderr and exit code 2.
    """

    def main() -> None:
        import hydra

        show_crashes()
        with one_line_errors():
            read_yaml()
            check_arguments(sys.argv[1:], known_keys())
            submitit = uses_submitit(sys.argv[1:])
        script = sys.argv[0]

        @functools.wraps(run)
        def job(composed: Any) -> None:
            # Hydra turns exceptions into tracebacks; SystemExit passes through it.
            with submitted_job(script) if submitit else one_line_errors():
                run(parse(_resolved(composed)))

        with launching(ROOT) if submitit else contextlib.nullcontext():
            hydra.main(config_path=str(ROOT), config_name="config", version_base=None)(job)()

    return main


def _resolved(composed: Any) -> dict[str, Any]:
    """Hydra's settings as a plain dictionary, references such as `${seed}` replaced."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise SettingError(str(error).splitlines()[0]) from error


CHOICE = "hydra/launcher=submitit_"
LIMIT = "hydra.launcher.timeout_min="


def uses_submitit(arguments: Sequence[str]) -> bool:
    """True if a command line asks for submitit; raises `UserError` for what cannot work."""
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
def submitted_job(script: str) -> Iterator[None]:
    """One job in its own process: errors go to its log, and to whoever launched it.

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
