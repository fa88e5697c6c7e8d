from dataclasses import dataclass, fields

from benchrunner.core.schema import ALLOWED, REQUIRED, Allowed, setting, typed_section, value_at
from samples import make_cell


def test_a_setting_holds_its_default_and_what_it_may_be():
    @dataclass
    class Section:
        choice: str = setting("a", choices=("a", "b"))
        size: int = setting(above=0, below=9)
        share: float = setting(0.5, least=0)

    assert [field.default for field in fields(Section)] == ["a", REQUIRED, 0.5]
    allowed = [Allowed(choices=("a", "b")), Allowed(above=0, below=9), Allowed(least=0)]
    assert [field.metadata[ALLOWED] for field in fields(Section)] == allowed


def test_a_key_with_points_leads_into_the_sections():
    assert value_at(make_cell().config, "optimizer.name") == "adamw"


def test_a_section_may_be_its_name_alone_and_leaves_out_what_it_does_not_know():
    """Plans of older versions."""
    assert typed_section("predict", "off").name == "off"
    assert typed_section("predict", {"name": "off", "gone": 1}).name == "off"
