import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.files.unpickle import NumpyUnpickler, load_numpy_pickle
from tests import py2_pickle

CONTENT: dict[str, Any] = {
    "signal": {
        "ACC": np.arange(60_000.0).reshape(-1, 3) / 7,
        "label": np.arange(9, dtype=np.int32),
    },
    "subject": "Zoë",
    "list": [1, 2.5, None, "text"],
    "bytes": np.frombuffer(bytes(range(256)), dtype=np.uint8),
}


def assert_same(read: object, written: object) -> None:
    if isinstance(written, dict):
        assert isinstance(read, dict) and read.keys() == written.keys()
        for key in written:
            assert_same(read[key], written[key])
    elif isinstance(written, np.ndarray):
        assert isinstance(read, np.ndarray) and read.dtype == written.dtype
        np.testing.assert_array_equal(read, written)
    else:
        assert read == written


def test_pickle_of_python_2_is_read() -> None:
    data = py2_pickle.dumps(CONTENT)
    assert data.startswith(b"(dp1\nS'signal'\n")
    assert_same(load_numpy_pickle(io.BytesIO(data), "S1.pkl"), CONTENT)


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_python_3_are_read(protocol: int) -> None:
    content = {**CONTENT, "scalar": np.float32(1.5), "tuple": (1, (2,)), "set": {1, 2}}
    data = pickle.dumps(content, protocol=protocol)
    assert_same(load_numpy_pickle(io.BytesIO(data), "S1.pkl"), content)


def test_contents_of_arrays_are_not_kept_in_the_memo() -> None:
    for data in (py2_pickle.dumps(CONTENT), pickle.dumps(CONTENT, protocol=2)):
        unpickler = NumpyUnpickler(io.BytesIO(data))
        unpickler.load()
        texts = [len(entry) for entry in unpickler.memo.values() if isinstance(entry, str)]
        assert texts
        assert max(texts) < CONTENT["signal"]["ACC"].nbytes / 8


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


class Run:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("exit 3",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_act_is_refused(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "created"
    data = pickle.dumps({"signal": Touch(target)}, protocol=protocol)
    with pytest.raises(
        ValueError, match=r"S1\.pkl is not a complete pickle .*refused to load (io|_io)"
    ):
        load_numpy_pickle(io.BytesIO(data), "S1.pkl")
    assert not target.exists()
    data = pickle.dumps([Run()], protocol=protocol)
    with pytest.raises(ValueError, match=r"refused to load posix\.system"):
        load_numpy_pickle(io.BytesIO(data), "S1.pkl")


def test_a_malicious_pickle_really_acts_when_trusted(tmp_path: Path) -> None:
    """So that the test above would fail without the restriction."""
    target = tmp_path / "created"
    pickle.loads(pickle.dumps(Touch(target))).close()  # noqa: S301 (made above)
    assert target.exists()


@pytest.mark.parametrize("name", ["builtins\neval", "numpy\nload", "numpy\nfromfile", "os\nsystem"])
def test_names_beside_the_array_types_are_refused(name: str) -> None:
    module, function = name.split("\n")
    with pytest.raises(ValueError, match=f"refused to load {module}.{function}"):
        load_numpy_pickle(io.BytesIO(f"c{name}\n(S'x'\ntR.".encode()), "S1.pkl")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_empty_and_truncated_pickles_are_named(share: float) -> None:
    for data in (py2_pickle.dumps(CONTENT), pickle.dumps(CONTENT)):
        with pytest.raises(
            ValueError, match=r"a/Zoë\.pkl is not a complete pickle .* download it again"
        ):
            load_numpy_pickle(io.BytesIO(data[: int(share * len(data))]), "a/Zoë.pkl")


def test_other_formats_are_named() -> None:
    for data in (b"id,x\n1,2\n", b"\x89HDF\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(50)):
        with pytest.raises(ValueError, match=r"S1\.pkl is not a complete pickle"):
            load_numpy_pickle(io.BytesIO(data), "S1.pkl")


def test_a_failing_storage_is_no_damaged_file() -> None:
    class Gone(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError("connection lost")

        readline = read

    with pytest.raises(OSError, match="connection lost"):
        load_numpy_pickle(Gone(), "S1.pkl")
