"""Files from the Hugging Face hub: resumed after any stop, verified, in place only when whole."""

import argparse
import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import make_folder
from common.foundation.progress import Bar

ALL = "all"  # the name that stands for everything


@dataclass(frozen=True)
class Collection:
    """Entries of one repository that can be fetched.

    Attributes:
        what: noun for an entry, in messages: "dataset".
        repository: "owner/name". kind: "model" or "dataset".
        entries: name the user gives -> files of the repository.
        folder: where they go by default, under the names they have in the repository.
    """

    what: str
    repository: str
    kind: str
    entries: Mapping[str, tuple[str, ...]]
    folder: Path

    def files(self, names: Sequence[str]) -> list[str]:
        """The files of some entries, or of all; raises `UserError` naming what there is."""
        unknown = [name for name in names if name != ALL and name not in self.entries]
        if unknown:
            known = ", ".join([*self.entries, ALL])
            raise UserError(f"no {self.what} is called {unknown[0]}; known: {known}")
        wanted = self.entries if ALL in names else dict.fromkeys(names)
        return [file for name in wanted for file in self.entries[name]]


def fetch(collection: Collection, file: str, folder: Path) -> bool:
    """Bring one file of the repository to `folder`; returns False if it was there already.

    The bytes that a stopped download left are kept and continued. A file takes its place when its
    size and hash are those that the hub has on record, in one rename; what is there before is never
    replaced. Raises `UserError` without a network, for a file in the way, a full disk or damage.
    """
    target = folder / file
    url, size, digest = _on_record(collection, file)
    if target.exists():
        if target.stat().st_size != size or _hash(target, digest) != digest:
            raise UserError(
                f"{target} is not the published file; move it away and run the same command again"
            )
        return False
    make_folder(target.parent, "--folder")
    partial = target.with_name(f".{target.name}.{digest[:12]}.part")
    _download(url, partial, size)
    if _hash(partial, digest) != digest:
        partial.unlink()
        raise UserError(f"{file} was damaged on its way; run the same command again")
    os.replace(partial, target)
    return True


def main(collection: Collection, arguments: Sequence[str] | None = None) -> None:
    """The command line of a download script: names, or `all`, and where to put them."""
    parser = argparse.ArgumentParser(description=f"Fetch published {collection.what}s.")
    known = ", ".join(collection.entries)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"{known}, or {ALL}")
    parser.add_argument("--folder", type=Path, default=collection.folder, help="where they go")
    options = parser.parse_args(arguments)
    with one_line_errors():
        for file in collection.files(options.names):
            new = fetch(collection, file, options.folder)
            print(f"{options.folder / file}: {'fetched' if new else 'already there'}")


def _on_record(collection: Collection, file: str) -> tuple[str, int, str]:
    """Address, size in bytes and hash of a file, from the hub."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    name, kind = collection.repository, collection.kind
    url = hf_hub_url(name, file, repo_type=kind, endpoint=endpoint)
    with hub_errors(url):
        record = get_hf_file_metadata(url)
    if record.size is None or len(record.etag or "") not in _HASHES:
        raise UserError(f"{url} comes without size and hash, so it cannot be verified")
    return url, record.size, record.etag


def _download(url: str, partial: Path, size: int) -> None:
    """Append to `partial` what is missing of `size` bytes."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # hf_hub_download would start over after a kill: its partial files have names of their own.
    with hub_errors(url), open(partial, "ab") as file:
        have = file.tell()
        free = shutil.disk_usage(partial.parent).free
        if size - have > free:
            raise UserError(
                f"{partial.parent} has {free / 1e9:.1f} GB free and {(size - have) / 1e9:.1f} GB "
                "are to come; make room, or choose another --folder"
            )
        about = {"resume_size": have, "expected_size": size, "headers": build_hf_headers()}
        http_get(url, file, **about, tqdm_class=Bar)
        file.flush()
        os.fsync(file.fileno())


# The hub names large files by their SHA-256 and small ones by git's SHA-1: by length of the name.
_HASHES = {
    64: lambda size: hashlib.sha256(),
    40: lambda size: hashlib.sha1(b"blob %d\0" % size),
}


def _hash(path: Path, like: str) -> str:
    """The hash of a file, of the kind of `like`."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: _HASHES[len(like)](size)).hexdigest()


@contextlib.contextmanager
def hub_errors(place: str, doing: str = "fetch") -> Iterator[None]:
    """Turn what goes wrong between here and the hub into a `UserError`."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, RemoteEntryNotFoundError

    try:
        yield
    except RemoteEntryNotFoundError as error:
        raise UserError(f"{place} does not exist on the hub (any more)") from error
    except (HTTPError, OSError, ValueError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403):
            raise UserError(
                f"the hub does not let you {doing} {place}; say who you are by `hf auth login`, "
                "or HF_TOKEN"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot {doing} {place} ({reason}); with a network, the same command continues"
        ) from error
