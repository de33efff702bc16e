"""No version with a known hole is installed, or could be: each floor names the hole that it is above.

Only holes that this project's use of a package could reach stand here, and those of what it pulls in. A scanner's
database is better at finding new ones; this keeps those that were found from coming back.
"""

import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.running import ROOT

# Package, the first version without the hole, and what the hole was.
HOLES = [
    ("apsw", "3.51.3", "SQLite's WAL reset bug, which loses commits; and CVE-2025-6965, memory corruption"),
    ("certifi", "2024.7.4", "CVE-2024-39689: roots that are not trusted any more"),
    ("cryptography", "42.0.4", "CVE-2024-26130: a crash by a crafted PKCS#12"),
    ("cryptography", "44.0.1", "CVE-2024-12797: OpenSSL takes a raw public key that was not verified"),
    ("cryptography", "46.0.5", "CVE-2026-26007: points outside the group of an elliptic curve"),
    ("h11", "0.16.0", "CVE-2025-43859: request smuggling by chunked bodies"),
    ("httpx", "0.23.0", "CVE-2021-41945: addresses that are read differently"),
    ("idna", "3.7", "CVE-2024-3651: quadratic time for a crafted name"),
    ("psutil", "5.6.6", "CVE-2019-18874: a double free"),
    ("pydantic", "2.4.0", "CVE-2024-3772: catastrophic matching of an address"),
    ("pyjwt", "2.4.0", "CVE-2022-29217: a public key taken for a secret"),
    ("pyjwt", "2.10.1", "CVE-2024-53861: part of an issuer taken for the whole"),
    ("pyjwt", "2.12.0", "CVE-2026-32597: critical headers that are not understood are passed over"),
    ("starlette", "0.40.0", "CVE-2024-47874: a form without bounds"),
    ("starlette", "0.49.1", "CVE-2025-62727: quadratic time for a crafted Range header"),
    ("starlette", "1.3.1", "CVE-2026-48710 and CVE-2026-54282: an address made up of an unchecked Host and path"),
    ("uvicorn", "0.11.7", "CVE-2020-7695: a response split by a header"),
    ("uvloop", "0.20.0", "CVE-2024-24806: libuv cuts long names, which then lead elsewhere"),
    ("websockets", "9.1", "CVE-2021-33880: a password found by timing"),
]


@pytest.mark.parametrize(("package", "first_good", "hole"), HOLES)
def test_the_installed_version_is_above_the_hole(package: str, first_good: str, hole: str) -> None:
    assert Version(version(package)) >= Version(first_good), hole


@pytest.mark.parametrize(("package", "first_good", "hole"), HOLES)
def test_no_version_with_the_hole_could_be_installed(package: str, first_good: str, hole: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["server"]
    (requirement,) = [each for each in map(Requirement, lines) if each.name == package]
    floors = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
    assert floors and max(floors) >= Version(first_good), hole
