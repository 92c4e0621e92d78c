"""Streams of npz columns: numpy's own files, bounded memory, and refusals of bad ones."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from common.foundation.errors import UserError
from common.foundation.files import atomic_write
from datasets.npz import BLOCK_BYTES, NpzFile, write_npz

ARRAYS = {
    "actions": np.random.default_rng(0).standard_normal((50, 5), np.float32),
    "terminals": np.arange(50) % 10 == 9,
    "button_states": np.arange(100).reshape(50, 2),
    "observations": np.random.default_rng(1).integers(0, 256, (50, 2, 8, 8, 3), np.uint8),
    "scalars": np.linspace(0, 1, 50, dtype=">f8"),
}


@pytest.fixture(params=[np.savez, np.savez_compressed])
def file(tmp_path: Path, request) -> Path:
    path = tmp_path / "data.npz"
    request.param(path, **ARRAYS)
    return path


def member(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)


def array_file(array: np.ndarray, shape: tuple | None = None, **options) -> bytes:
    """The bytes of an npy file, with another shape in its header if given."""
    buffer = io.BytesIO()
    header = npy.header_data_from_array_1_0(array) | options
    npy.write_array_header_1_0(buffer, header | ({"shape": shape} if shape is not None else {}))
    return buffer.getvalue() + array.tobytes()


def test_columns_are_read_as_numpy_wrote_them(file: Path) -> None:
    with NpzFile(file) as npz:
        assert list(npz.columns) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert (npz.columns[name].shape, npz.columns[name].dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(npz.read(name), array)
            np.testing.assert_array_equal(npz.read(name, 3), array[:3])


def test_readers_advance_side_by_side(file: Path) -> None:
    with NpzFile(file) as npz, npz.open("actions") as actions, npz.open("observations") as images:
        assert len(actions) == len(images) == 50
        for start, stop in ((0, 7), (7, 7), (7, 50)):
            for reader, name in ((actions, "actions"), (images, "observations")):
                np.testing.assert_array_equal(reader.read(stop - start), ARRAYS[name][start:stop])
        with pytest.raises(UserError, match=r"data\.npz, column actions: .*ends early"):
            actions.read(1)


def test_reading_holds_no_more_than_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    array = np.random.default_rng(0).integers(0, 256, (4000, 64, 64, 1), np.uint8)  # 16 MiB
    np.savez_compressed(path, images=array)
    tracemalloc.start()
    with NpzFile(path) as npz, npz.open("images") as reader:
        for start in range(0, 4000, 100):
            assert reader.read(100)[0, 0, 0] == array[start, 0, 0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * BLOCK_BYTES < array.nbytes / 3


def test_columns_that_are_not_asked_for_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **ARRAYS)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("observations.npy")
    content = bytearray(path.read_bytes())
    middle = info.header_offset + info.compress_size // 2
    content[middle : middle + 1000] = bytes(1000)
    path.write_bytes(content)
    with NpzFile(path) as npz:
        np.testing.assert_array_equal(npz.read("actions"), ARRAYS["actions"])
        with pytest.raises(UserError, match=r"data\.npz, column observations: cannot be read"):
            npz.read("observations")


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **ARRAYS)
    content = bytearray(path.read_bytes())
    content[content.index(ARRAYS["actions"].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data\.npz, .*actions.*CRC"), NpzFile(path) as npz:
        npz.read("actions")


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_a_cut_file_is_named(file: Path, keep: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(UserError, match=r"data\.npz: cannot be read .*get the file again") as error:
        NpzFile(file)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_column_are_named(file: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*none\.npz"):
        NpzFile(file.with_name("none.npz"))
    with NpzFile(file) as npz, pytest.raises(UserError, match=r"no column qpos .*actions, termi"):
        npz.read("qpos")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("../up.npy", array_file(np.zeros(3)), r"member '\.\./up\.npy': .*not a column"),
        ("/etc/x.npy", array_file(np.zeros(3)), "not a column"),
        ("actions.npy", array_file(np.zeros(3)), "occurs twice"),
        ("a.npy", b"no array at all", "magic"),
        ("a.npy", array_file(np.zeros(3))[:20], "cannot be read"),
        ("a.npy", array_file(np.zeros(3), shape=(10**12,)), "which it cannot hold"),
        ("a.npy", array_file(np.zeros(3), shape=(2,)), "which it cannot hold"),
        ("a.npy", array_file(np.zeros(3), shape=(-1, -3)), "row by row"),
        ("a.npy", array_file(np.zeros((3, 2)), shape=(4, 2), fortran_order=True), "cannot hold"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_no_plain_array_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **ARRAYS)
    member(path, name, content)
    with pytest.raises(UserError, match=message) as error:
        NpzFile(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("readme.txt", b"hello", "not a column"),
        ("__MACOSX/._actions.npy", b"\0\5", "not a column"),
        ("infos/goal.npy", array_file(np.zeros(50)), "not a column"),
        ("a.npy", array_file(np.zeros(3), shape=()), "row by row"),
        ("a.npy", array_file(np.zeros(3, np.int64), descr="|O"), "nothing is unpickled"),
        ("a.npy", array_file(np.zeros(3, "U4")), "not numbers"),
        ("a.npy", array_file(np.zeros(3, complex)), "not numbers"),
        ("a.npy", array_file(np.zeros(3, "M8[s]")), "not numbers"),
        ("a.npy", array_file(np.zeros(3, [("x", "f4")])), "not numbers"),
        ("a.npy", npy.magic(3, 0) + bytes(9), r"version \(3, 0\)"),
    ],
)
def test_what_is_whole_but_no_column_is_in_the_way_of_who_asks_for_it_only(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **ARRAYS)
    member(path, name, content)
    with NpzFile(path) as npz:
        assert list(npz.columns) == list(ARRAYS)
        np.testing.assert_array_equal(npz.read("actions"), ARRAYS["actions"])
        (left_out,) = npz.left_out
        with pytest.raises(UserError, match=message) as error:
            npz.read(left_out)
    assert f"{path}, column {left_out}: " in str(error.value)
    assert "get the file again" not in str(error.value)


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
def test_columns_in_fortran_s_order_are_read_row_by_row(tmp_path: Path, compress) -> None:
    """As pandas and transposed arrays leave them."""
    path = tmp_path / "data.npz"
    arrays = {name: np.asfortranarray(array) for name, array in ARRAYS.items()}
    compress(path, **arrays)
    with NpzFile(path) as npz, npz.open("observations") as images:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(npz.read(name), array)
            np.testing.assert_array_equal(npz.read(name, 3), array[:3])
            assert npz.read(name, 3).flags.c_contiguous
        for start, stop in ((0, 7), (7, 7), (7, 50)):
            np.testing.assert_array_equal(
                images.read(stop - start), ARRAYS["observations"][start:stop]
            )
        with pytest.raises(UserError, match=r"data\.npz, column observations: .*ends early"):
            images.read(1)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sizes_that_the_archive_invents_are_refused(tmp_path: Path, compression: int) -> None:
    """Header and directory agree on a terabyte, but the file is small."""
    path, huge = tmp_path / "data.npz", 2**31
    content = array_file(np.zeros(0, np.uint8), shape=(huge,))
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.npy", content)
        info = archive.getinfo("a.npy")
        info.file_size = len(content) + huge  # of the directory, written on closing
        if compression == zipfile.ZIP_STORED:
            info.compress_size = info.file_size
    with pytest.raises(UserError, match="which it cannot hold"):
        NpzFile(path)


def write(path: Path, shapes, blocks) -> None:
    with atomic_write(path) as file:
        write_npz(file, shapes, blocks)


def test_written_files_are_numpy_s(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    shapes = {name: (array.shape, array.dtype) for name, array in ARRAYS.items()}

    def blocks(name: str):
        yield from np.array_split(ARRAYS[name], 7)

    write(path, shapes, blocks)
    with np.load(path, allow_pickle=False) as loaded:
        assert list(loaded) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert loaded[name].dtype == array.dtype
            np.testing.assert_array_equal(loaded[name], array)
    first = path.read_bytes()
    write(path, shapes, blocks)
    assert path.read_bytes() == first
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"before")

    def damaged(name: str):
        yield ARRAYS[name][:10]
        raise UserError("an episode is damaged")

    def short(name: str):
        yield ARRAYS[name][:10]

    shapes = {"actions": ((50, 5), "float32")}
    for blocks, kind in ((damaged, UserError), (short, ValueError)):
        with pytest.raises(kind, match=r"damaged|10 rows, not 50"):
            write(path, shapes, blocks)
        assert path.read_bytes() == b"before"
    assert [path] == list(tmp_path.iterdir())
