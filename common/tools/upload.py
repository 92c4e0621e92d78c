"""Upload to the Hugging Face hub: `python -m common.tools.upload OWNER/NAME PATH...`.

A PATH is the folder of a training run, of tables, or a complete dataset; it keeps its name in the
repository, which is made if it is not there. Datasets go to a repository for datasets, the others
to one for models. `hf auth login`, or HF_TOKEN, says who you are. The same command continues an
upload that was stopped: what the hub has is not sent again.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import read_json
from common.tools.hub import hub_errors

PER_COMMIT = 250  # files: what has been committed survives a stop
# Of runs and tables; video of training, logs and locks stay here.
WANTED = ("*.safetensors", "*.json", "*.csv", "*.md", "*.tex", "*.png", "*.html")
MARKS = {  # a file that tells what a folder is -> the kind of its repository, and what is sent
    "header.json": ("dataset", ("header.json", "*/*.h5")),
    "last.safetensors": ("model", WANTED),
    "runs.csv": ("model", WANTED),
}


def upload(repository: str, folders: Sequence[Path], private: bool = False) -> str:
    """Send folders to a repository and return its address.

    Raises `UserError` for a folder of no known kind or of another kind than the others, for an
    incomplete dataset, and for what goes wrong between here and the hub.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    kinds = {_kind(folder)[0] for folder in folders}
    if len(kinds) > 1:
        raise UserError("datasets have a repository of their own; upload them apart from the rest")
    files = [(f"{f.resolve().name}/{p.relative_to(f)}", p) for f in folders for p in _files(f)]
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)
    (kind,) = kinds
    with hub_errors(repository, "upload to"):
        address = api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        for start in range(0, len(files), PER_COMMIT):
            print(f"{start} of {len(files)} files", flush=True)
            batch = files[start : start + PER_COMMIT]
            api.create_commit(
                repository,
                [CommitOperationAdd(path_in_repo=name, path_or_fileobj=p) for name, p in batch],
                commit_message=f"Add {', '.join(folder.resolve().name for folder in folders)}",
                repo_type=kind,
            )
    return str(address)


def _kind(folder: Path) -> tuple[str, Sequence[str]]:
    """The kind of repository for a folder, and which of its files go there."""
    found = next((MARKS[mark] for mark in MARKS if (folder / mark).is_file()), None)
    if found is None:
        raise UserError(
            f"{folder} is no agent, dataset or folder of tables; give one with {', '.join(MARKS)}"
        )
    header = folder / "header.json"
    if header.is_file() and not read_json(header)["complete"]:
        raise UserError(f"{folder} is not complete; run the command again that makes it")
    return found


def _files(folder: Path) -> list[Path]:
    _, patterns = _kind(folder)
    return sorted({path for p in patterns for path in folder.glob(p) if path.name[0] != "."})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Upload agents, datasets or tables.")
    parser.add_argument("repository", metavar="OWNER/NAME")
    parser.add_argument("folders", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--private", action="store_true", help="if the repository is made")
    options = parser.parse_args(arguments)
    with one_line_errors():
        print(upload(options.repository, options.folders, options.private))


if __name__ == "__main__":
    main()
