"""The client for JavaScript as one file: what a program takes with it is all that it needs."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.client import node_client
from tests.running import DEADLINE_S, ROOT
from twincast.testing import Server
from twincast.transports.bundle import bundled, styled
from twincast.transports.pages import OneFile

ENTRY = ROOT / "twincast" / "web" / "client" / "client.js"
PROGRAM = """
globalThis.WebSocket ??= class {};
const { Client, ...others } = await import(process.argv[1]);
console.log(JSON.stringify(["Client", ...Object.keys(others)].sort()));
"""
TALK = """
const { Client } = await import(process.argv[1]);
const client = new Client({ url: process.argv[2] });
client.open();
console.log((await client.publish("lamp", { lit: true })).type);
client.close();
"""


def node(program: str, *arguments: str) -> str:
    command = [node_client.node(), "--experimental-websocket", "--input-type=module", "-e", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_file_is_served_and_exports_what_the_modules_do(tmp_path: Path) -> None:
    with Server() as server:
        answer = httpx.get(f"{server.url}/dashboard/client.js").raise_for_status()
        again = httpx.get(f"{server.url}/dashboard/client.js", headers={"If-None-Match": answer.headers["etag"]})
    assert answer.headers["content-type"].startswith("text/javascript")
    assert (answer.headers["access-control-allow-origin"], again.status_code) == ("*", 304)
    alone = tmp_path / "client.mjs"
    alone.write_text(answer.text)
    assert json.loads(node(PROGRAM, str(alone))) == json.loads(node(PROGRAM, str(ENTRY)))


def test_one_file_speaks_to_a_server(tmp_path: Path) -> None:
    alone = tmp_path / "client.mjs"
    with Server() as server:
        alone.write_text(httpx.get(f"{server.url}/dashboard/client.js").text)
        assert node(TALK, str(alone), server.url.replace("http", "ws") + "/ws").strip() == "ack"
        assert server.state["lamp"].value == {"lit": True}


@pytest.mark.parametrize(
    "text",
    [
        'import x from "./other.js";\n',
        'import * as x from "./other.js";\n',
        'import { wrong } from "./wrong.js";\n',
        'import { a, c } from "./other.js";\n',
        'import { round } from "./round.js";\n',
    ],
)
def test_what_is_not_understood_is_an_error_and_no_wrong_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "round.js").write_text('import { back } from "./back.js";\nexport const round = back;\n')
    (tmp_path / "back.js").write_text('import { round } from "./round.js";\nexport const back = round;\n')
    (tmp_path / "other.js").write_text("export const a = 1, b = 2;\n")
    (tmp_path / "wrong.js").write_text("export default 1;\n")
    (tmp_path / "entry.js").write_text(text)
    with pytest.raises(ValueError, match=r"not understood|not there, or not yet"):
        bundled(tmp_path / "entry.js")


def test_modules_keep_their_own_names_and_are_called_once(tmp_path: Path) -> None:
    (tmp_path / "one.js").write_text("let count = 0;\nexport function next() { return ++count; }\n")
    (tmp_path / "two.js").write_text(
        'import { next as more } from "./one.js";\nconst count = 10;\nexport const two = () => count + more();\n'
    )
    (tmp_path / "entry.js").write_text(
        'import { next } from "./one.js";\nexport { two } from "./two.js";\nconst count = next();\nexport { count };\n'
    )
    alone = tmp_path / "alone.mjs"
    alone.write_text(bundled(tmp_path / "entry.js").text)
    program = "const m = await import(process.argv[1]); console.log(m.count, m.two(), m.two());"
    assert node(program, str(alone)).split() == ["1", "12", "13"]


def test_defaults_lists_of_exports_and_modules_that_are_elsewhere_are_understood(tmp_path: Path) -> None:
    (tmp_path / "vendor.js").write_text(
        "/*\nexport function gone() {}\n*/\nfunction plot() { return 7; }\n"
        "const more = 1;\nexport { plot as default, more };\n"
    )
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "client.js").write_text(
        'import { own } from "./own.js";\nexport const named = own + 1;\n'
    )
    (tmp_path / "elsewhere" / "own.js").write_text("export const own = 2;\n")
    (tmp_path / "entry.js").write_text(
        'import { named } from "./client.js";\nimport plot from "./vendor.js";\n'
        'import { more as one } from "./vendor.js";\n'
        "export const all = [named, plot(), one];\n"
    )
    alone = tmp_path / "alone.mjs"
    alone.write_text(
        bundled(tmp_path / "entry.js", {tmp_path / "client.js": tmp_path / "elsewhere" / "client.js"}).text
    )
    program = "const m = await import(process.argv[1]); console.log(...m.all);"
    assert node(program, str(alone)).split() == ["3", "7", "1"]


def test_a_style_sheet_has_those_that_it_imports_in_their_places(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "all.css").write_text('@import "./base.css";\n@import "../vendor/plot.css";\nb { top: 0 }\n')
    (tmp_path / "styles" / "base.css").write_text('a { src: url("../fonts/a.woff2") }\n')
    (tmp_path / "vendor" / "plot.css").write_text("c { left: 0 }\n")
    made = styled(tmp_path / "styles" / "all.css")
    assert made.text.split("\n") == ['a { src: url("../fonts/a.woff2") }', "", "c { left: 0 }", "", "b { top: 0 }", ""]
    assert {each.name for each in made.files} == {"all.css", "base.css", "plot.css"}


@pytest.mark.parametrize("text", ['@import "../other.css";', '@import url("./other.css");', '@import "other.css";'])
def test_style_sheets_that_would_be_wrong_elsewhere_are_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "styles").mkdir()
    (tmp_path / "other.css").write_text('a { src: url("./a.woff2") }\n')
    (tmp_path / "styles" / "all.css").write_text(text)
    with pytest.raises(ValueError, match="not understood"):
        styled(tmp_path / "styles" / "all.css")


async def test_a_file_that_is_served_as_one_is_made_anew_when_a_part_of_it_changes(tmp_path: Path) -> None:
    entry, part = tmp_path / "all.css", tmp_path / "part.css"
    entry.write_text('@import "./part.css";')
    part.write_text("a { top: 0 }")
    app = FastAPI()
    app.add_api_route("/all.css", OneFile(lambda: styled(entry), "text/css"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        first = await client.get("/all.css")
        assert (first.text, first.headers["content-type"]) == ("a { top: 0 }", "text/css; charset=utf-8")
        assert (await client.get("/all.css", headers={"If-None-Match": first.headers["etag"]})).status_code == 304
        part.write_text("a { top: 1px }")
        os.utime(part, ns=(1, 1))
        assert (await client.get("/all.css")).text == "a { top: 1px }"
        entry.write_text("b { top: 2px }")
        part.unlink()
        assert (await client.get("/all.css")).text == "b { top: 2px }"
