"""Formats that are not read, and what to do with a file of one."""

# By what to do: the suffixes.
ADVICE = {
    "convert it to LAS or PLY with CloudCompare": ".e57 .ptx .fls .drc",
    "convert it to E57 with Autodesk ReCap, and that to LAS with CloudCompare": ".rcp .rcs",
    # Its OBJ has y up, which no file says; GLB always has. trimesh keeps a file's axes: z up in 3MF, any in DAE.
    "convert it to GLB with Blender": ".blend .fbx .3ds .usd .usda .usdc .usdz .abc .wrl .x3d",
    "convert it to PLY with trimesh (pip install 'trimesh[easy]')": ".3mf",
    "convert it to PLY with trimesh (pip install 'trimesh[easy]'); if it says Y_UP, --up y is needed then": ".dae",
    "convert it to STL or OBJ with FreeCAD": ".step .stp .iges .igs .brep .brp .fcstd .ifc .dwg .dxf",
    "convert it to PLY with SuperSplat": ".splat .ksplat .spz .sog",
    "convert it to CSV with VeloView": ".pcap .pcapng",
    "convert it to PLY or CSV with ParaView": ".vtk .vtp .vtu .vti .pvd",
    "convert it to OBJ or STL with meshio": ".msh .mesh .inp .med",
    "save its points as NPY with numpy": ".mat .pkl .pickle .pt .pth .parquet .feather .xlsx .xls",
    "unpack it": ".zip .gz .tar .tgz .7z .rar .bz2 .xz .zst",
}
CONVERTERS = {suffix: words for words, suffixes in ADVICE.items() for suffix in suffixes.split()}
