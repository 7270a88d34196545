"""The house stays in order: imports run one way and stand at the top, private names stay at home, pieces stay short."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "pointnet").rglob("*.py"), ROOT / "train.py"])
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# What each room may import. `datasets` knows no model, no model knows a data set, and inference knows no training.
FLOOR = {"names", "files", "extras", "devices", "world"}
MODELS = {"ops", "layers", "models"}
DATA = {"points", "datasets"}
ALLOWED = {
    **dict.fromkeys(FLOOR, FLOOR),
    "ops": FLOOR,
    "layers": FLOOR | {"ops"},
    "models": FLOOR | {"ops", "layers"},
    "points": FLOOR,
    "datasets": FLOOR | {"points"},
    "evaluation": FLOOR | MODELS | DATA,
    "training": FLOOR | MODELS | DATA | {"evaluation"},
    "inference": FLOOR | MODELS | DATA | {"evaluation"},
    "pages": FLOOR | MODELS | DATA | {"evaluation", "training", "inference"},
    "commands": FLOOR | MODELS | DATA | {"evaluation", "training", "inference", "pages"},
    "__main__": FLOOR | {"commands"},
    "__init__": MODELS | {"inference"},
    "train": {"commands"},
}
MOST_CODE, MOST_LINES = 40, 350  # of a function, of a file


@functools.cache
def source_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def nodes_of(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "pointnet" else parts[0]


def imported(source: str, path: Path) -> Iterator[tuple[str, str, int]]:
    """The full module name of each import from the package, the name that is taken from it, and its line."""
    here = path.relative_to(ROOT).with_suffix("").parts
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names if alias.name.split(".")[0] == "pointnet")
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.split(".")[0] == "pointnet":
                yield from ((module, alias.name, node.lineno) for alias in node.names)


def breaches(source: str, path: Path) -> list[str]:
    """What a file of the package does against the rules of imports and private names."""
    nodes, room = nodes_of(source), room_of(path)
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = []
    for module, name, line in imported(source, path):
        words = f"{module}.{name}".split(".")[1:]
        if words[0] and words[0] not in ALLOWED[room] | {room, "__version__"}:
            found.append(f"{room} imports {words[0]}")
        if any(word.startswith("_") and not word.startswith("__") for word in words):
            found.append(f"takes the private name {module}.{name}")
        around = (function.name for function in functions if function.lineno < line <= function.end_lineno)
        found.extend(f"{function} imports {module}.{name} in its body" for function in around)
    aliases = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("pointnet"))
        for alias in node.names
    }
    for node in nodes:
        private = isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if private and isinstance(node.value, ast.Name) and node.value.id in aliases:
            found.append(f"takes the private name {node.value.id}.{node.attr}")
    return found


def circle_from(start: str, imports: dict[str, set[str]]) -> list[str]:
    """A path of imports from a module back to itself; empty where there is none."""
    paths, seen = [[start]], set()
    while paths:
        path = paths.pop()
        for module in imports.get(path[-1], set()):
            if module == start:
                return [*path, start]
            if module not in seen:
                seen.add(module)
                paths.append([*path, module])
    return []


def imports_of(files: list[Path]) -> dict[str, set[str]]:
    """By module, the modules of the package that it imports, for type checkers alone too; packages are left out."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    found = {}
    for name, path in modules.items():
        pairs = imported(source_of(path), path)
        found[name] = {full for module, taken, _ in pairs for full in (module, f"{module}.{taken}") if full in modules}
    return found


def test_no_imports_run_in_a_circle():
    imports = imports_of(FILES)
    assert [circle for module in imports if (circle := circle_from(module, imports))] == []
    imports["pointnet.files"].add("pointnet.training.fit")  # which the check must notice
    assert circle_from("pointnet.files", imports)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """The lines of a function without its docstring, comments, blank lines and the functions within it."""
    skipped: set[int] = set()
    for node in ast.walk(function):
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if inner and ast.get_docstring(node) is not None:
            skipped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        if inner and node is not function:
            skipped |= set(range(node.lineno, node.end_lineno + 1))
    span = range(function.lineno, function.end_lineno + 1)
    return sum(1 for at in span if at not in skipped and lines[at - 1].strip() and lines[at - 1].strip()[0] != "#")


def long_functions(source: str) -> dict[str, int]:
    lines = source.splitlines()
    functions = (
        node
        for node in nodes_of(source)
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MOST_CODE
    )
    return {each.name: count for each in functions if (count := code_lines(each, lines)) > MOST_CODE}


def test_imports_run_one_way_and_private_names_stay_at_home():
    assert {path: found for path in FILES if (found := breaches(source_of(path), path))} == {}


@pytest.mark.parametrize(
    ("file", "line", "breach"),
    [
        ("ops/pooled.py", "from pointnet.layers import SharedMLP", "ops imports layers"),
        ("models/chunks.py", "from pointnet.datasets import ModelNet", "models imports datasets"),
        ("datasets/folder.py", "import pointnet.models", "datasets imports models"),
        ("evaluation/tasks.py", "from pointnet.training import settings", "evaluation imports training"),
        ("inference/predict.py", "from pointnet.training.settings import TrainConfig", "inference imports training"),
        ("inference/label.py", "from ..pages.viewer import View", "inference imports pages"),
        ("training/fit.py", "from .run import _secret", "takes the private name pointnet.training.run._secret"),
        ("training/fit.py", "from . import run\nrun._secret()", "takes the private name run._secret"),
        ("pages/show.py", "def f():\n    from .viewer import View", "f imports pointnet.pages.viewer.View in its body"),
    ],
)
def test_the_rules_notice_what_breaks_them(file, line, breach):
    path = ROOT / "pointnet" / file
    assert breach in breaches(f"{source_of(path)}\n{line}\n", path)


# `run` of each command and `own_columns` of each format; `rotation` is a corruption too, listed by its function's name.
SHARED_NAMES = {"main", "own_columns", "rotation", "run"}


def test_no_name_means_two_things():
    homes: dict[str, set[Path]] = {}
    for path in FILES:
        defined = [node for node in ast.parse(source_of(path)).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        for node in defined if path.parent.name != "triton" else []:  # whose kernels are named as their twins
            homes.setdefault(node.name, set()).add(path)
    several = {name for name, paths in homes.items() if len(paths) > 1 and not name.startswith("_")}
    assert several <= SHARED_NAMES, {name: homes[name] for name in several - SHARED_NAMES}


def test_functions_and_files_are_short():
    assert {path: found for path in FILES + TESTS if (found := long_functions(source_of(path)))} == {}
    lines = {path: len(source_of(path).splitlines()) for path in FILES + TESTS}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_no_syntax_is_newer_than_the_oldest_python():
    (oldest,) = re.findall(r'^requires-python = ">=3\.(\d+)"$', source_of(ROOT / "pyproject.toml"), re.MULTILINE)
    for path in FILES:
        ast.parse(source_of(path), str(path), feature_version=(3, int(oldest)))


def test_a_function_is_measured_by_its_code_alone():
    body = "".join(f"    x = {i}\n" for i in range(39))
    assert long_functions(f'def f():\n    """Two\n    lines."""\n\n    # a comment\n{body}') == {}
    assert long_functions(f"def f():\n{body}    x = 39\n") == {"f": 41}


def test_no_test_takes_names_from_another_test_file():
    for path in TESTS:
        for node in nodes_of(source_of(path)):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not module.startswith("tests.test_"), path


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh Python has loaded after this code."""
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_pulls_in_nothing_and_predict_only_what_it_needs():
    assert not {"torch", "numpy"} & loaded_by("import pointnet")
    modules = loaded_by("from pointnet import SharedMLP, load_model, predict")
    heavy = ["trimesh", "h5py", "jsonargparse", "yaml", "scipy", "matplotlib", "huggingface_hub", "onnx", "onnxruntime"]
    assert not modules & set(heavy)
    rooms = ["training", "pages", "commands", "datasets.s3dis", "datasets.download"]
    assert not modules & {f"pointnet.{room}" for room in rooms}
