"""The map follows the land."""

import ast
import importlib.util
import re

from benchrunner.core.axes import AXES
from benchrunner.core.paths import CHECKOUT


def load_maker():
    spec = importlib.util.spec_from_file_location("make_structure", CHECKOUT / "docs" / "make_structure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_rooms_of_the_code():
    maker = load_maker()
    text = maker.PAGE.read_text()
    assert maker.page(text) == text, "make structure"


def test_every_module_is_on_the_page():
    maker = load_maker()
    modules = [path for path in maker.PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) > 100
    rooms = maker.rooms()
    assert all(f"| `{path.name}` | {maker.sentence(path)} |" in rooms for path in modules)


def test_every_room_has_a_floor_of_its_own():
    """A room that nobody put on a floor would be at the end of the page."""
    maker = load_maker()
    rooms = {path.parent.name for path in maker.PACKAGE.glob("*/__init__.py")}
    assert rooms <= set(maker.FLOORS)
    assert {path.parent.name for path in maker.PACKAGE.glob("worker/*/__init__.py")} == set(maker.WORKER)


def test_the_readme_names_every_option():
    section = (CHECKOUT / "README.md").read_text().partition("## The axes")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))
    for group, words in rows.items():
        named = [name for word in re.findall("`([^`]+)`", words) for name in spelt_out(word)]
        assert sorted(named) == sorted(path.stem for path in (CHECKOUT / "conf" / group).glob("*.yaml")), group
    assert list(rows) == list(AXES)


def spelt_out(word):
    """`llama2-7b/13b` → llama2-7b, llama2-13b; `a-proxy/-proxy2` → a-proxy, a-proxy2."""
    first, *others = word.split("/")
    return [first, *(f"{first.rpartition('-')[0]}-{other.lstrip('-')}" for other in others)]


def test_every_text_has_an_encoding():
    """Else it is the locale's, and in that of C nothing beyond ASCII can be read."""
    calls = [
        (path.name, node)
        for path in sorted((CHECKOUT / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _is_of_text(node)
    ]
    assert [f"{name}:{node.lineno}" for name, node in calls if "encoding" not in _keywords(node)] == []
    assert len(calls) > 20


def _keywords(call):
    return {keyword.arg for keyword in call.keywords}


def _is_of_text(call):
    if "text" in _keywords(call) and isinstance(call.func, ast.Attribute) and ast.unparse(call.func).startswith("subp"):
        return True
    if isinstance(call.func, ast.Attribute) and ast.unparse(call.func) != "os.open":
        return call.func.attr in ("read_text", "write_text") or (call.func.attr == "open" and _opens_text(call.args))
    return isinstance(call.func, ast.Name) and call.func.id == "open" and _opens_text(call.args[1:])


def _opens_text(arguments):
    modes = [argument.value for argument in arguments if isinstance(argument, ast.Constant)]
    return all(isinstance(mode, str) and "b" not in mode for mode in modes)
