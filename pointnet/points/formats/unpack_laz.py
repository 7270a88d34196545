"""Run as a script, in a process of its own: the points of a LAZ file, unpacked, to standard output.

On a damaged file lazrs may panic, abort, or ask for more memory than there is. Here that ends this process alone.
Nothing but lazrs is imported, so that it takes 40 ms.
"""

import os
import sys

BLOCK = 1 << 16  # points unpacked at once
MEMORY = 400_000_000  # bytes of address space beside twice the file's size


def main(folder: str, path: str, start: str, laszip: str, record: str, count: str) -> None:
    """Writes `count` records of `record` bytes; the packed ones begin at `start`.

    Args:
        folder: the folder that lazrs is in.
        laszip: the record of the file that describes its packing, in hexadecimal digits.
    """
    sys.path.insert(0, folder)
    import lazrs

    limit_memory(MEMORY + 2 * os.path.getsize(path))
    size, left, described = int(record), int(count), bytes.fromhex(laszip)
    if lazrs.LazVlr(described).item_size() != size:
        raise ValueError(f"its records are of {size} bytes, but {lazrs.LazVlr(described).item_size()} are packed")
    with open(path, "rb") as file:
        file.seek(int(start))
        unpacker = lazrs.LasZipDecompressor(file, described)
        while left:
            block = bytearray(min(left, BLOCK) * size)
            unpacker.decompress_many(block)
            sys.stdout.buffer.write(block)
            left -= len(block) // size


def limit_memory(size: int) -> None:
    """Lets this process take no more memory than that, where the system can do so."""
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ImportError, ValueError, OSError):  # Windows has no limits, and macOS refuses this one
        return


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException as error:  # a panic is no Exception
        sys.exit(f"{type(error).__name__}: {error}")
