"""One parser a file format: bytes in, `Contents` out. Only HDF5's opens a file; all refuse with `Refusal`.

They are our own so that reading takes at most ten times a file's size: trimesh takes 20 times the size of an ordinary
ASCII PLY, and 23 times that of an OBJ of short lines. The tests compare the surfaces with trimesh's.
"""
