"""The house rules that a machine can hold: sizes, no trace of a machine, documented modules, quick imports, pins."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from errors import refused
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "repae").rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 400, 60
ROOM_LINES, RECIPES_LINES, MEDIAN_LINES = 4300, 1500, 110
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cff", ".json", ".sh", ""}
MACHINE_PATH = re.compile(r"(?<![A-Za-z0-9_.\w])/(?:tmp|root|work|home|Users|mnt|opt)/")
REGISTRY = re.compile("|".join(["py" + "pi[.]org", "python" + "hosted", "registry[.]npm" + "js", "deb[.]deb" + "ian"]))


def _texts() -> Iterator[Path]:
    """Every text file that belongs to the project."""
    for folder in ("src", "tests", "docs", "benchmarks", "experiments", ".ci", ".github"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                yield path
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and path.suffix in TEXT and path.name != ".git":
            yield path


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_source_file_fits_in_the_head(path: Path) -> None:
    """No file reaches 400 lines and no function 60 without its docstring; every module says what it is."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) < FILE_LINES, f"{_name(path)} has {len(text.splitlines())} lines"
    assert ast.get_docstring(tree) or (path.name.startswith("_") and path.name != "__init__.py")
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node):
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            assert lines < FUNCTION_LINES, f"{_name(path)}: {node.name} has {lines} lines"


def test_a_file_is_called_after_what_it_holds() -> None:
    """A name such as `words` or `utils` says nothing to whoever looks for something."""
    nothing = {"words", "utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert not [_name(path) for path in SOURCES if path.stem in nothing]


def test_no_machine_stands_in_the_files() -> None:
    """Absolute paths of a machine and names of package registries would be wrong everywhere else."""
    found = [
        f"{_name(path)}:{number}: {line.strip()}"
        for path in _texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line) or REGISTRY.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("module", ["repae", "repae.config", "repae.cli"])
def test_the_command_line_starts_without_heavy_imports(module: str) -> None:
    """`repae --help` answers at once because nothing of this is loaded before a command needs it."""
    heavy = ["torch", "torchvision", "timm", "diffusers", "sklearn", "skimage", "matplotlib", "wandb", "scipy"]
    code = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_pins_cover_what_the_project_asks_for() -> None:
    """Every dependency has one exact version in constraints.txt, and it is one that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (exact,) = pin.specifier
            assert exact.operator == "==" and not pin.url
            pins[canonicalize_name(pin.name)] = exact.version
    assert len(pins) == sum(1 for line in lines if line and not line.startswith("#"))
    for wanted in map(
        Requirement, itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    ):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted


def test_there_is_one_atomic_writer() -> None:
    """What is written is written whole or not at all, by `config/files.py` alone: nothing else gives files a name."""
    found = [
        f"{_name(path)}:{node.lineno}"
        for path in SOURCES
        if path != ROOT / "src" / "repae" / "config" / "files.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _renames(node, node.func)
    ]
    assert not found, f"use atomic_file, atomic_folder or write_atomic of repae.config: {found}"


def _renames(call: ast.Call, function: ast.Attribute) -> bool:
    """`x.rename(y)`, `x.replace(y)`, `os.replace(x, y)`, `shutil.move(x, y)`; not what texts and recipes do."""
    if isinstance(function.value, ast.Name) and function.value.id in ("os", "shutil"):
        return function.attr in ("rename", "renames", "replace", "move")
    return function.attr == "rename" or (function.attr == "replace" and len(call.args) == 1 and not call.keywords)


DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Distributions that are not called as what is imported from them."""

UNSEEN = {"tensorboard", "lpips"}
"""Used, never imported: ``torch.utils.tensorboard`` does not bring the one along, of the other we read a file."""


def _imported(path: Path) -> Iterator[str]:
    """Distributions from which a file imports something."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for module in [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]:
                name = module.partition(".")[0]
                if name != "repae" and name not in sys.stdlib_module_names:
                    yield canonicalize_name(DISTRIBUTIONS.get(name, name))


def test_what_is_imported_is_declared_and_nothing_else() -> None:
    """Every import of the package has its dependency, core or extra, and every dependency an import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core, extra = (
        {canonicalize_name(Requirement(line).name) for line in lines}
        for lines in (
            project["dependencies"],
            itertools.chain(*(lines for name, lines in project["optional-dependencies"].items() if name != "dev")),
        )
    )
    used = set(itertools.chain.from_iterable(map(_imported, SOURCES)))
    assert not used - core - extra, f"imported, not declared: {sorted(used - core - extra)}"
    assert not (core | extra) - used - UNSEEN, f"declared, not imported: {sorted((core | extra) - used - UNSEEN)}"


def test_the_public_names() -> None:
    """What `repae` promises is there, and loads on first use only."""
    import repae

    assert set(repae.__all__) <= set(dir(repae))
    for name in repae.__all__:
        assert getattr(repae, name) is not None
    for name in ("compare", "evaluate", "load", "recipe", "train"):
        assert inspect.isfunction(getattr(repae, name))
    with refused(AttributeError, "'nothing'"):
        repae.nothing  # noqa: B018


def test_type_checkers_see_the_public_names() -> None:
    """A name that loads on first use is imported for type checkers under that very name, and is the same object."""
    import repae

    (block,) = (node for node in ast.parse(Path(repae.__file__).read_text()).body if isinstance(node, ast.If))
    seen = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert seen.keys() == set(repae.__all__) - {"__version__"}
    assert {name: source for name, source in seen.items() if source[0] != "repae"} == repae._FUNCTIONS
    assert (ROOT / "src" / "repae" / "py.typed").is_file()


def test_experiments_know_the_public_names_only() -> None:
    """Whole comparisons are written as a user would write them: what they need is public, or on the command line."""
    import repae

    public = {"repae", *(f"repae.{name}" for name in repae.__all__)}
    for path in (ROOT / "experiments").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"repae.{alias.name}" for alias in node.names] if node.module == "repae" else [node.module]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "repae":
                names = [f"repae.{node.attr}"]
            private = [name for name in names if name.split(".")[0] == "repae" and name not in public]
            assert not private, f"{_name(path)}:{node.lineno}: {private[0]} is not public"


def test_the_hooks_are_the_checks() -> None:
    """`pre-commit` runs what `make check` runs, command by command, so that neither passes what the other refuses."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ncheck: setup\n")[2].split("\n\n")[0]
    checks = [line.strip().replace("$(PY)", ".venv/bin/python") for line in lines.splitlines()]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert local["repo"] == "local" and [hook["entry"] for hook in local["hooks"]] == checks
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in local["hooks"])


def test_every_promised_python_is_tested() -> None:
    """The versions in the classifiers are those that the workflow runs, and the oldest is the one that is required."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == promised
    assert project["requires-python"] == f">={promised[0]}"


def test_the_version_is_in_the_changelog() -> None:
    """What is installed says its version, and the page of changes begins with that very one."""
    import repae

    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[([\d.]+)\]", changes, flags=re.MULTILINE)[0] == repae.__version__


def test_links_between_pages_lead_somewhere() -> None:
    """A page that moved or a heading that was renamed takes the links to it along."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / ".github").rglob("*.md")]
    for page in pages:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", prose):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            if link.startswith(("https://", "http://")):
                continue
            assert target.exists(), f"{_name(page)}: {link} leads nowhere"
            if heading:
                titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert heading in anchors, f"{_name(page)}: {link} names no heading"


def _names_in_a_switch(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """The classes named in ``isinstance``, ``issubclass``, ``type(x) is C`` and ``case C():``, with their lines."""
    for node in ast.walk(tree):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            asked = [*node.args[1:2]] if node.func.id in ("isinstance", "issubclass") else []
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            types = [side for side in sides if isinstance(side, ast.Call) and ast.unparse(side.func) == "type"]
            asked = [side for side in sides if side not in types] if types else []
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        names = (part for one in asked for part in ast.walk(one))
        found = {part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in names}
        if found:
            yield getattr(node, "lineno", getattr(node, "end_lineno", 0)), found


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_nobody_asks_of_which_class_a_method_or_its_step_is(path: Path) -> None:
    """What a method is, its traits say; then a method is one file, and a new one needs no other."""
    folder = ROOT / "src" / "repae" / "training" / "methods"
    of_methods = {
        node.name
        for file in [*folder.glob("*.py"), folder.parent / "method.py", folder.parent / "joint.py"]
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    assert {"RepaE", "RepaEStep", "Repa", "RepaStep", "Naive", "VaeOnly", "VaeStep", "MethodStep"} <= of_methods
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for line, names in _names_in_a_switch(tree):
        assert not names & of_methods - own, f"{_name(path)}:{line} asks for {names & of_methods}; ask method.traits"
    for node in ast.walk(tree):
        parts = ast.walk(node) if isinstance(node, (ast.Compare, ast.Match)) else ()
        asked = [ast.unparse(part) for part in parts if isinstance(part, (ast.Attribute, ast.Constant))]
        assert not [text for text in asked if text.strip("'").endswith("method.kind")], (
            f"{_name(path)} compares a method's kind; ask method.traits"
        )


def test_a_public_class_has_its_name_alone() -> None:
    """A name leads to one class: what people read, search for and see in errors. Exported code repeats ours on purpose.
    No file is called `words`, which says nothing of what is in it."""
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        assert path.stem != "words", f"{_name(path)}: name it after what is in it"
        if "standalone" not in path.parts:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(_name(path))
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def test_no_room_outgrows_the_others() -> None:
    """Recipes stay data; a room that a newcomer cannot survey is two; most files are read at one sitting."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    rooms: dict[str, int] = {}
    for path, count in lines.items():
        room = path.relative_to(ROOT / "src" / "repae").parts[0]
        rooms[room] = rooms.get(room, 0) + count
    assert rooms["recipes"] <= RECIPES_LINES
    assert not {room: count for room, count in rooms.items() if count > ROOM_LINES}
    assert statistics.median(lines.values()) <= MEDIAN_LINES
