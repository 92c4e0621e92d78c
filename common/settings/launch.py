"""Entry points of the scripts: one run, or a sweep."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from common.foundation.errors import one_line_errors, show_crashes
from common.foundation.messages import Terminal, lines_to
from common.settings.config import ROOT, Config, known_keys, parse, read_yaml
from common.settings.overrides import check_arguments
from common.settings.schema import SettingError
from common.settings.sweeps import Sweep, is_sweep, launching, submitted_job, uses_submitit


def hydra_main(run: Callable[[Config], None]) -> Callable[[], None]:
    """Return the entry point of a script: read the command line, check it, call `run`.

    A mistake of the user ends the script with one line on stderr and exit code 2; in a sweep, the
    other jobs run before.
    """

    def main() -> None:
        import hydra

        show_crashes()
        with one_line_errors():
            read_yaml()
            check_arguments(sys.argv[1:], known_keys())
            several, submitit = is_sweep(sys.argv[1:]), uses_submitit(sys.argv[1:])
        script, sweep = sys.argv[0], Sweep()

        @functools.wraps(run)
        def job(composed: Any) -> None:
            # Hydra turns exceptions into tracebacks; SystemExit passes through it.
            here = sweep.job() if several else one_line_errors()
            with lines_to(Terminal()), submitted_job(script) if submitit else here:
                run(parse(_resolved(composed)))

        with sweep, launching(ROOT, sweep) if submitit else one_line_errors():
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
