"""Data flows one way: no lower room imports a higher one, and modules are not called like functions."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "leafiqa"
# From the bottom to the top, as docs/architecture.md draws it.
ROOMS = (
    "errors arguments files tables images model onnx details explanation preparing metric scoring labels evaluation "
    "generators reports evidence teachers training calibration distillation rating integrations api cli"
).split()


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "leafiqa"


def imports():
    """Yield file, its room, and the room of each leafiqa module that it imports, wherever in the file that is."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in ("__init__", "__main__"):
            continue
        tree = ast.parse(path.read_text())
        guarded = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in guarded:
                continue
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leafiqa"):
                names = [node.module] if node.module != "leafiqa" else [f"leafiqa.{a.name}" for a in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith("leafiqa.")]
            for name in names:
                yield path.relative_to(PACKAGE), parts[0], room_of(name)


def test_every_room_is_known():
    found = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    assert found - {"__init__", "__main__", "__pycache__", "py", "weights"} <= {*ROOMS, "py.typed"}
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    assert [room for room in ROOMS if not re.search(rf"\b{room}\b", page)] == []


def test_no_lower_room_imports_a_higher_one():
    seen = list(imports())
    assert len(seen) > 150
    wrong = [
        f"{path} imports {imported}"
        for path, own, imported in seen
        if imported in ROOMS and ROOMS.index(imported) > ROOMS.index(own)
    ]
    assert wrong == []


def test_the_rule_would_notice(monkeypatch, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "odd.py").write_text("def f():\n    from leafiqa.scoring.rows import Row\n    return Row\n")
    monkeypatch.setattr("tests.test_architecture.PACKAGE", tmp_path)
    assert [(own, imported) for _, own, imported in imports()] == [("images", "scoring")]


def test_modules_are_not_called_like_functions():
    functions = set()
    for path in PACKAGE.rglob("*.py"):
        functions |= {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    modules = {path.stem for path in PACKAGE.rglob("*.py") if path.parent.name != "cli"}
    assert modules & functions == set()


def test_files_are_of_a_size_that_one_reads():
    long = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in long.items() if lines > 450} == {}
