"""Fetch the published encoders: `python -m visual_encoders.download_chkpts NAME...` or `all`.

Each is a folder with `hparams.json` and `best.pth`, for `rep_model_checkpoint`. Stack-Cube uses the
encoders of PPP-Cube.
"""

from pathlib import Path

from common.foundation.hub import Collection, main
from common.foundation.registry import FROZEN
from visual_encoders.checkpoints import HPARAMS, WEIGHTS

# Name of an encoder but for its kind -> what it was trained on, which published files do not say.
_TRAINED_ON = {
    "mv-ppp-cube-v0": {"environment": "manipobj-v0", "views": 2},
    "visual-scene-v0": {"environment": "visual-scene-v0", "views": 1},
    "push-tetris-v0": {"environment": "pushtetris-v0", "views": 1},
}
ORIGINS = {f"{k}-{name}": origin for k in FROZEN for name, origin in _TRAINED_ON.items()}
NAMES = tuple(ORIGINS)
ENCODERS = Collection(
    what="encoder",
    repository="DanHrmti/hecrl_visual_encoders",
    kind="model",
    entries={name: (f"{name}/{HPARAMS}", f"{name}/{WEIGHTS}") for name in NAMES},
    folder=Path("visual_encoders/chkpts"),
)

if __name__ == "__main__":
    main(ENCODERS)
