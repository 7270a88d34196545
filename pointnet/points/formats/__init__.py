"""One parser per file format: bytes in, `Contents` out; those that read in blocks or other files too take a path.

All raise `Refusal` where a file is not of its format, is cut short, declares a wrong count or more than it holds, needs
another file, or names a vertex that is not there. Other errors may leave a parser too; `file_errors` catches them.

They are our own so that reading takes at most ten times a file's size: trimesh takes 20 times the size of an ordinary
ASCII PLY, and 23 times that of an OBJ of short lines. The tests compare the surfaces with trimesh's.
"""
