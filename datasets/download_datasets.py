"""Fetch the published datasets: `python -m datasets.download_datasets NAME...` or `all`.

Each is one `.npz` file. They have no validation episodes.
"""

from pathlib import Path

from common.foundation.hub import Collection, main

DATASETS = Collection(
    what="dataset",
    repository="DanHrmti/hecrl",
    kind="dataset",
    entries={
        "ppp-cube": ("ppp-cube-noisy-v0-mv.npz",),
        "stack-cube": ("stack-cube-noisy-v0-mv.npz",),
        "visual-scene": ("visual-scene-noisy-v0.npz",),
        "push-tetris": ("push-tetris-constrained_random-v0.npz",),
    },
    folder=Path("datasets/data"),
)

if __name__ == "__main__":
    main(DATASETS)
