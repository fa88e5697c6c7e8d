"""The map follows the land."""

import importlib.util

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
