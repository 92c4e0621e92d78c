"""Fetch the published encoders: `python -m visual_encoders.download_chkpts NAME...` or `all`.

Each is a folder with `hparams.json` and `best.pth`, for `rep_model_checkpoint`. Stack-Cube uses the
encoders of PPP-Cube.
"""

from pathlib import Path

from common.hub import Collection, main
from visual_encoders.checkpoints import HPARAMS, WEIGHTS

NAMES = (
    "dlp-mv-ppp-cube-v0",
    "dlp-visual-scene-v0",
    "dlp-push-tetris-v0",
    "vqvae-mv-ppp-cube-v0",
    "vqvae-visual-scene-v0",
    "vqvae-push-tetris-v0",
)
ENCODERS = Collection(
    what="encoder",
    repository="DanHrmti/hecrl_visual_encoders",
    kind="model",
    entries={name: (f"{name}/{HPARAMS}", f"{name}/{WEIGHTS}") for name in NAMES},
    folder=Path("visual_encoders/chkpts"),
)

if __name__ == "__main__":
    main(ENCODERS)
