"""HDF5 files that crash, stall or fill memory with the library that reads them."""

import io
import struct
import zlib

import h5py
import numpy as np

NBIT, DEFLATE, LZF = 5, h5py.h5z.FILTER_DEFLATE, 32000


def chunked(chunk: bytes, filters: tuple[tuple[int, tuple[int, ...]], ...], rows: int = 4) -> bytes:
    """A file whose data set "points" (rows, 3), float32, is one chunk of these stored bytes."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((rows, 3))
        for number, values in filters:
            settings.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
        space = h5py.h5s.create_simple((rows, 3))
        made = h5py.h5d.create(file.id, b"points", h5py.h5t.IEEE_F32LE, space, settings)
        made.write_direct_chunk((0, 0), chunk, 0)
    return stream.getvalue()


def fletcher(stored: int) -> bytes:
    """A chunk with a checksum of four bytes, of which so many bytes are stored."""
    return chunked(bytes(stored), ((h5py.h5z.FILTER_FLETCHER32, ()),))


def nbit_without_parameters() -> bytes:
    data = bytearray(chunked(bytes(48), ((NBIT, ()),)))
    at = data.index(b"nbit") - 8  # number, bytes of the name, flags, number of parameters, name
    assert struct.unpack_from("<H", data, at)[0] == NBIT
    struct.pack_into("<H", data, at + 6, 0)
    return bytes(data)


def plain() -> bytearray:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["points"] = np.arange(12, dtype="f4").reshape(4, 3)
    return bytearray(stream.getvalue())


def tree_in_itself() -> bytes:
    """A node of the tree of names is its own child."""
    data = plain()
    at = data.index(b"TREE")
    struct.pack_into("<B", data, at + 5, 1)  # its level
    struct.pack_into("<Q", data, at + 32, at)  # its first child
    return bytes(data)


def names_in_a_loop() -> bytes:
    """The first free block among the names is followed by itself, so that `name in file` never returns."""
    data = plain()
    free, names = struct.unpack_from("<QQ", data, data.index(b"HEAP") + 16)
    struct.pack_into("<Q", data, names + free, free)
    return bytes(data)


def deflated(times: int) -> bytes:
    data = np.arange(12, dtype="f4").tobytes()
    for _ in range(times):
        data = zlib.compress(data)
    return chunked(data, ((DEFLATE, (4,)),) * times)


def deflate_bomb(megabytes: int) -> bytes:
    """A chunk of 48 bytes that unpacks to so many megabytes."""
    packer = zlib.compressobj()
    first, other = (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return chunked(first + other * megabytes, ((DEFLATE, (4,)),))


def lzf_bomb(size: int) -> bytes:
    """So many bytes that are unpacked anew for each doubling of the chunk's 48 bytes."""
    packed = b"\x00\x00" + b"\xe0\xff\x00" * (size // 3)
    return chunked(packed, ((LZF, (4, 0x0105, 48)),))
