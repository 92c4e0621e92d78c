"""Parts of one collection, made apart and merged into what one machine would have collected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.foundation.errors import UserError
from datasets.source import SPLITS


@dataclass(frozen=True)
class Part:
    """Part `shard` of `num_shards` of a collection, a range of its episodes.

    Attributes:
        episodes: number of the whole collection's, by split.
    """

    episodes: dict[str, int]
    shard: int = 0
    num_shards: int = 1

    def __post_init__(self) -> None:
        if self.shard >= self.num_shards:
            raise UserError(
                f"shard={self.shard} is too large; with num_shards={self.num_shards} "
                f"the last one is {self.num_shards - 1}"
            )
        if self.num_shards > self.episodes["train"]:
            raise UserError(
                f"num_shards={self.num_shards} is more than "
                f"num_collect_episodes={self.episodes['train']}"
            )

    def range(self, split: str) -> range:
        """The episodes of this part by their numbers in the whole."""
        whole, count = self.episodes[split], self.num_shards
        return range(whole * self.shard // count, whole * (self.shard + 1) // count)

    @property
    def own(self) -> dict[str, int]:
        """Number of this part's episodes by split."""
        return {split: len(self.range(split)) for split in SPLITS}

    @property
    def suffix(self) -> str:
        """End of the name of the part's dataset."""
        return "" if self.num_shards == 1 else f"-part{self.shard}of{self.num_shards}"

    def header(self) -> dict[str, Any]:
        """Entry of the part's place in the header of its dataset; none for the whole."""
        if self.num_shards == 1:
            return {}
        place = {"shard": self.shard, "num_shards": self.num_shards}
        return {"part": place | {"episodes": self.episodes}}


def in_order(parts: Sequence[Mapping[str, Any]]) -> list[int]:
    """Index of each part of one collection among `parts`, the entries `part` of their headers.

    Raises `UserError` if not each is there once.
    """
    numbers, count = [part["shard"] for part in parts], parts[0]["num_shards"]
    missing = [str(number) for number in range(count) if number not in numbers]
    if missing:
        raise UserError(f"of {count} parts, shard {', '.join(missing)} is not given")
    if len(numbers) > count:
        raise UserError(f"there are {count} parts, and {len(numbers)} are given; give each once")
    return [numbers.index(number) for number in range(count)]
