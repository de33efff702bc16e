"""The glossary and the guided reading name what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "twincast"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
GUIDE = (ROOT / "docs" / "one-reading.md").read_text()

TERMS = re.findall(r"^\| \*\*(.+?)\*\*.* \| .+ \| (.+) \|$", GLOSSARY, re.MULTILINE)
LINKS = re.findall(r"\[(twincast/[\w/]+\.py)\]\((\S+)\) · `(\w+)`", GUIDE)


def defines(path: Path, name: str) -> bool:
    """Whether a class, function or type of this name is defined in a file."""
    return (
        re.search(rf"^\s*(?:async )?(?:class|def) {name}\b|^{name}\b.* = ", path.read_text(), re.MULTILINE) is not None
    )


def test_the_glossary_can_be_read_at_one_sitting() -> None:
    assert len(TERMS) == len(re.findall(r"^\| ", GLOSSARY, re.MULTILINE)) - 1, "a row is not of the form of the others"
    assert 20 <= len(TERMS) <= 30


@pytest.mark.parametrize(("term", "place"), TERMS)
def test_a_term_of_the_glossary_is_in_the_code_where_it_says(term: str, place: str) -> None:
    modules = re.findall(r"`([a-z_]+/[\w/]+)`", place)
    assert modules, f"{term}: {place} names no module"
    for module in modules:
        assert (PACKAGE / f"{module}.py").is_file(), f"{term}: there is no {module}"
    for name, module in re.findall(r"`(\w+)` in `([\w/]+)`", place):
        assert defines(PACKAGE / f"{module}.py", name), f"{term}: {module} defines no {name}"


def test_the_guided_reading_has_ten_stops() -> None:
    assert re.findall(r"^(\d+)\. ", GUIDE, re.MULTILINE) == [str(number) for number in range(1, 11)]
    assert len(LINKS) >= 10


@pytest.mark.parametrize(("path", "link", "name"), LINKS)
def test_a_stop_of_the_guided_reading_is_where_it_says(path: str, link: str, name: str) -> None:
    assert (ROOT / "docs" / link).resolve() == ROOT / path
    assert defines(ROOT / path, name), f"{path} defines no {name}"
