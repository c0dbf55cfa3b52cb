"""What may import what (``utils ← common ← (models, dataset) ← runners ← main``), and sizes."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

MAY_IMPORT = {
    "utils": {"utils"},
    "common": {"utils", "common"},
    "models": {"utils", "common", "models"},
    "dataset": {"utils", "common", "dataset"},
    "runners": {"utils", "common", "models", "dataset", "runners"},
}
OURS = {*MAY_IMPORT, "main", "tests"}
HEAVY = {
    "accelerate", "diffusers", "faiss", "h5py", "matplotlib", "numba", "open_clip", "ray", "rich",
    "scipy", "submitit", "tensorboard", "timm", "torchvision", "transformers",
}  # fmt: skip
# modules that are one library's code; imported inside functions only, like the library itself
OF_A_LIBRARY = {
    "common.metrics.compat.numba_walk": "numba",
    "common.metrics.counting.closed_forms": "numba",
    "common.metrics.counting.numba_backend": "numba",
}
LIMIT = 420  # lines
FAMILIES = ("cross_modal", "image", "zero_shot", "shallow")  # of methods, one file each
PARTS = ("centers", "layers", "losses", "text")  # that methods share
RUNNER_BASES = {"base.py", "experiment.py", "staged.py"}
SOURCES = [file for package in MAY_IMPORT for file in sorted((ROOT / package).rglob("*.py"))]


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def module_of(file: Path) -> str:
    return name_of(file).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(tree: ast.AST, top_only: bool = False) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of all imports, or of those that happen when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            if not top_only:
                yield from imports(node)
        else:
            yield from imports(node, top_only)


def registers(file: Path) -> bool:
    """Return whether a class or function of the file is entered into a registry."""
    return any(
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr == "register"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for decorator in getattr(node, "decorator_list", [])
    )


def test_every_file_of_a_family_and_of_runners_registers_something():
    folders = [*(ROOT / "models" / family for family in FAMILIES), ROOT / "runners"]
    files = [f for folder in folders for f in folder.glob("*.py") if f.name != "__init__.py"]
    silent = {name_of(file) for file in files if not registers(file)}
    assert silent == {f"runners/{name}" for name in RUNNER_BASES}


def test_a_folder_of_parts_holds_parts():
    files = [file for part in PARTS for file in (ROOT / "models" / part).rglob("*.py")]
    files += [f for folder in (ROOT / "runners").iterdir() for f in folder.rglob("*.py")]
    assert [name_of(file) for file in files if registers(file)] == []


def test_every_folder_of_models_is_a_family_or_holds_parts():
    folders = {f.parent.name for f in (ROOT / "models").glob("*/__init__.py")}
    assert folders == {*FAMILIES, *PARTS, "backbones"}
    assert {f.name for f in (ROOT / "models").glob("*.py")} == {"__init__.py", "base.py"}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    wrong = [
        f"{name_of(file)}:{line} imports {module}"
        for file in SOURCES
        if file.is_relative_to(ROOT / package)
        for module, line in imports(ast.parse(file.read_text(encoding="utf-8")))
        if module.split(".")[0] in OURS - MAY_IMPORT[package]
    ]
    assert wrong == []


def modules_imported(files: dict[str, Path], module: str) -> dict[str, int]:
    """Return the modules of ``files`` that ``module`` imports anywhere, with the line of each.

    Importing a module also imports its packages. Inside a package that counts only where a name
    of its ``__init__`` is imported, since the package is being imported by then.
    """
    lines: dict[str, int] = {}
    for name, line in imports(ast.parse(files[module].read_text(encoding="utf-8"))):
        parts = name.split(".")
        prefixes = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
        for i, target in enumerate(prefix for prefix in prefixes if prefix in files):
            is_inside = f"{module}.".startswith(f"{target}.")
            if not is_inside or (i == 0 and target != name):
                lines.setdefault(target, line)
    return lines


def reachable(graph: dict[str, dict[str, int]], start: str) -> set[str]:
    seen: set[str] = set()
    remaining = [start]
    while remaining:
        new = graph[remaining.pop()].keys() - seen
        seen |= new
        remaining += new
    return seen


def test_no_import_circle():
    """Also none through imports inside functions or behind TYPE_CHECKING."""
    files = {module_of(file): file for file in [*SOURCES, ROOT / "main.py"]}
    graph = {module: modules_imported(files, module) for module in files}
    reached = {module: reachable(graph, module) for module in files}
    circles = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in files
        if module in reached[module]
    }
    listed = [
        "\n".join(
            f"{name_of(files[module])}:{line} imports {target}"
            for module in sorted(circle)
            for target, line in graph[module].items()
            if target in circle
        )
        for circle in circles
    ]
    assert not listed, "\n\n".join(["circles of imports", *listed])


def test_heavy_libraries_are_imported_where_they_are_used():
    wrong = [
        f"{name_of(file)}:{line} imports {module}"
        for file in [*SOURCES, ROOT / "main.py"]
        for module, line in imports(ast.parse(file.read_text(encoding="utf-8")), top_only=True)
        if module in OF_A_LIBRARY or module.split(".")[0] in HEAVY
        if OF_A_LIBRARY.get(module_of(file)) != OF_A_LIBRARY.get(module, module.split(".")[0])
    ]
    assert wrong == []


def test_listing_imports_nothing_heavy():
    code = (
        "import json, sys, main\nassert main.main(['list']) == 0\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert sorted(HEAVY & set(json.loads(done.stdout.splitlines()[-1]))) == []


def test_files_are_small_enough_to_read():
    sizes = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


def test_functions_are_small_enough_to_read():
    long = {}
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > 60:
                    long[f"{name_of(file)}:{node.name}"] = size
    assert long == {}


def qualified_names(module: str, tree: ast.AST) -> dict[str, str]:
    """Return name → dotted name of what a module imports and of the classes that it defines."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.ClassDef):
            names[node.name] = f"{module}.{node.name}"
    return names


def private_names(node: ast.ClassDef) -> set[str]:
    """Return the ``_names`` of methods, of class attributes and of attributes set on ``self``."""
    names = {n.name for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
    for statement in node.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            inner_names = (n for n in ast.walk(statement) if isinstance(n, ast.Name))
            names |= {n.id for n in inner_names if isinstance(n.ctx, ast.Store)}
    for inner in ast.walk(node):
        stored = isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
        if stored and ast.unparse(inner.value) == "self":
            names.add(inner.attr)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_private_names_of_other_modules_are_not_overridden():
    names, classes = {}, {}
    for file in SOURCES:
        module, tree = module_of(file).removesuffix(".__init__"), ast.parse(file.read_text("utf-8"))
        names[module] = qualified_names(module, tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[f"{module}.{node.name}"] = module, node

    def resolve(module: str, name: str) -> str:
        """Return the qualified name of a class as ``module`` sees it, through re-exports."""
        first, _, rest = name.partition(".")
        found = ".".join(filter(None, (names[module].get(first, first), rest)))
        inner, _, last = found.rpartition(".")
        if found in classes or inner not in names or inner == module:
            return found
        return resolve(inner, last)

    def ancestors(key: str) -> Iterator[str]:
        module, node = classes[key]
        for base in node.bases:
            parent = resolve(module, ast.unparse(base).partition("[")[0])
            if parent in classes:
                yield parent
                yield from ancestors(parent)

    wrong = [
        f"{key} overrides {name} of {parent}"
        for key, (module, node) in classes.items()
        for parent in ancestors(key)
        if classes[parent][0] != module
        for name in sorted(private_names(node) & private_names(classes[parent][1]))
    ]
    assert wrong == []
    assert {"runners.standard.StandardRunner", "runners.base.Runner"} <= set(
        ancestors("runners.shc.SHCRunner")
    )
    assert "models.base.HashLoss" in ancestors("models.image.csq.CSQLoss")


def test_one_module_prints():
    """Text from outside reaches a terminal through ``utils/terminal.py`` alone."""
    printing = ROOT / "utils" / "terminal.py"
    drawing = {printing, ROOT / "utils" / "progress.py"}
    for file in (*SOURCES, ROOT / "main.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        libraries = {module.split(".")[0] for module, _ in imports_anywhere(tree)}
        assert "rich" not in libraries or file in drawing, name_of(file)
        called = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
        writes = {"print", "sys.stdout.write", "sys.stderr.write", "csv.writer"} & set(called)
        allowed = {"print"} if file == printing else set()
        if "csv.writer" in writes:
            assert "csv_cell" in called, name_of(file)
            allowed.add("csv.writer")
        assert writes <= allowed, name_of(file)


def imports_anywhere(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of all imports, those for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno
