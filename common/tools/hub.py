"""Upload to the Hugging Face hub: `python -m common.tools.hub OWNER/NAME PATH...`.

A PATH is the folder of a training run, of tables, or a complete dataset; it keeps its name in the
repository, which is made if it is not there. Datasets go to a repository for datasets, the others
to one for models. `hf auth login`, or HF_TOKEN, says who you are. The same command continues an
upload that was stopped.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import read_json
from common.foundation.hub import hub_errors

# Of runs and tables; video of training, logs and locks stay here.
WANTED = ("*.safetensors", "*.json", "*.csv", "*.md", "*.tex", "*.png", "*.html")
MARKS = {  # file that tells the kind of a folder -> kind of repository, files sent, files kept back
    "header.json": ("dataset", ("header.json", "*/*.h5"), ("*/.*",)),
    "last.safetensors": ("model", WANTED, (".*", "*/*")),
    "runs.csv": ("model", WANTED, (".*", "*/*")),
}


def upload(repository: str, folders: Sequence[Path], private: bool = False) -> str:
    """Send folders to a repository and return its address.

    Raises `UserError` for a folder of no known kind or of another kind than the others, for an
    incomplete dataset, and for what goes wrong between here and the hub.
    """
    from huggingface_hub import HfApi

    marks = [_mark(folder) for folder in folders]
    if len({kind for kind, *_ in marks}) > 1:
        raise UserError("datasets have a repository of their own; upload them apart from the rest")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)
    with hub_errors(repository, "upload to"):
        kind = marks[0][0]
        address = api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        for folder, (_, sent, kept_back) in zip(folders, marks, strict=True):
            name = folder.resolve().name
            api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                path_in_repo=name,
                repo_type=kind,
                allow_patterns=list(sent),
                ignore_patterns=list(kept_back),
                commit_message=f"Add {name}",
            )
    return str(address)


def _mark(folder: Path) -> tuple[str, Sequence[str], Sequence[str]]:
    """The entry of `MARKS` that fits a folder."""
    found = next((MARKS[mark] for mark in MARKS if (folder / mark).is_file()), None)
    if found is None:
        raise UserError(
            f"{folder} is no agent, dataset or folder of tables; give one with {', '.join(MARKS)}"
        )
    header = folder / "header.json"
    if header.is_file() and not read_json(header)["complete"]:
        raise UserError(f"{folder} is not complete; run the command again that makes it")
    return found


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
