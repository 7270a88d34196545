"""One parser a file format: bytes in, `Contents` out. Only HDF5's opens a file; all refuse with `Refusal`.

They are our own because a library's cannot be held to ten times a file's size: trimesh takes 20 times an ordinary ASCII
PLY's, and 23 times an OBJ's of short lines. The tests hold them to trimesh's surfaces.
"""
