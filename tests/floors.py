"""What is wrong with the floors of a tree: who imports whom, how long functions and files are, and
which public functions lack annotations.

test_floors.py runs it over this project and over small wrong trees.
"""

import ast
import sys

SCRIPTS = ("train_cls", "make_masks", "train_seg", "evaluate")
FOLDERS = ("methods", "data", "runs", "training", "report", "demo")
LONGEST_FUNCTION, MOST_PARAMETERS, LONGEST_FILE = 50, 7, 260
LONGER = {"cam2seg/cam.py": 330}  # all maps and their derivations in one file, to be copied alone
# Folders of cam2seg that the files of a folder must not import.
FORBIDDEN = {"methods": FOLDERS[1:], "data": {*FOLDERS} - {"data"},
             "runs": ("training", "report", "demo"), "training": ("report", "demo"),
             "report": ("runs", "training"), "demo": ("runs", "training")}


def complaints(root):
    """One line for each thing that is wrong in the files below `root`."""
    out = []
    package = root / "cam2seg"
    for path in sorted([*package.rglob("*.py"), *(root / f"{s}.py" for s in SCRIPTS)]):
        if path.exists():
            where = str(path.relative_to(root))
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
            names = imports(tree, path.relative_to(root).with_suffix("").parts[:-1])
            out += [f"{where}: {said}" for said in _wrong_imports(path, package, names)]
            out += [f"{where}: {said}" for said in _too_long(tree)]
            if package in path.parents:
                out += [f"{where}: {said}" for said in _without_annotation(tree)]
            lines = len(source.splitlines())
            longest = LONGER.get(where, LONGEST_FILE)
            if lines > longest:
                out.append(f"{where}: {lines} lines, expected {longest} or less")
    for folder in sorted(p for p in package.iterdir() if p.is_dir() and any(p.glob("*.py"))):
        out += [f"{folder.name}: {said}" for said in _wrong_docstring(folder / "__init__.py")]
    return out


def imports(tree, parts):
    """Absolute dotted names that a module imports, at its top or inside a function.

    parts: the packages that the module is in, as ("cam2seg", "data"). `from a import b` gives a.b,
    because b may be a module.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = list(parts[:len(parts) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return sorted(found)


def _wrong_imports(path, package, names):
    top = {p.stem for p in package.glob("*.py")} - {"__init__"}
    inside = path.parent != package and package in path.parents
    folder = path.relative_to(package).parts[0] if inside else None
    for name in names:
        first, *rest = name.split(".")
        if first in SCRIPTS:
            yield f"imports the script {first}"
        elif first != "cam2seg":
            if path.parent == package and not _outside_allowed(path, first):
                yield f"a file of the top floor imports {name}"
        elif path.parent == package:
            if path.name != "__init__.py" and rest[:1] != ["masks"]:
                yield f"a file of the top floor imports {name}"
        elif path.name == "__main__.py":
            continue  # a script
        elif folder and rest and rest[0] in FORBIDDEN.get(folder, ()):
            yield f"{folder} imports {name}"
        elif folder in ("data", "methods") and not _floor_below(folder, top, rest):
            yield f"{folder} imports {name}"


def _outside_allowed(path, first):
    if first in sys.stdlib_module_names or first in ("torch", "numpy"):
        return True
    return first == "torchvision" and path.name == "models.py"


def _floor_below(folder, top, rest):
    """Whether data or methods may import cam2seg.<rest>: the top floor, themselves, and Error."""
    return bool(rest) and (rest[0] in {*top, folder} or folder == "data" and rest == ["Error"])


def _too_long(tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines > LONGEST_FUNCTION and node.name != "get_args":
                yield f"{node.name} has {lines} lines, expected {LONGEST_FUNCTION} or less"
            given = [p.arg for p in _parameters(node)]
            count = len(given) - (given[:1] == ["self"])
            if count > MOST_PARAMETERS:
                yield f"{node.name} has {count} parameters, expected {MOST_PARAMETERS} or less"


def _parameters(function):
    a = function.args
    return [p for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if p]


def _without_annotation(tree):
    """The public functions of a module and methods of its classes that lack an annotation."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    for node in (node for body in bodies for node in body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[0] != "_":
            lacking = [p.arg for p in _parameters(node)
                       if p.annotation is None and p.arg not in ("self", "cls")]
            lacking += [] if node.returns else ["its return value"]
            if lacking:
                yield f"{node.name} has no annotation of {', '.join(lacking)}"


def _wrong_docstring(path):
    """A folder says in one sentence what belongs there, and in one what does not."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None
    if not said:
        return ["no __init__.py with a docstring"]
    sentences = [s for s in " ".join(said.split()).replace(":", ".").split(".") if s.strip()]
    refused = [s for s in sentences if "not belong" in s or "Nothing" in s and "belongs" in s]
    wrong = [] if refused else ["the docstring does not say what does not belong there"]
    return wrong + ([] if len(sentences) > len(refused) else
                    ["the docstring does not say what belongs there"])
