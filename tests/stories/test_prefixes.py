"""Below any path, by a mount or a proxy, everything is as it is without one."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from playwright.sync_api import Browser, Page, expect
from websockets.sync.client import connect as open_websocket

from tests.browser import Witness
from tests.conftest import StartServer
from tests.credentials import add_key, bearer
from tests.running import DEADLINE_S, eventually, free_port
from tests.serving import serving
from tests.test_deploy import needed, running
from twincast import Twincast
from twincast.app import App, create_app
from twincast.client import Rest
from twincast.client.sync import connect
from twincast.errors import NotStarted, SettingUnusable
from twincast.fast import ELSEWHERE, Edge
from twincast.settings import Settings

HERE = "http://127.0.0.1"
PAGES = ("/", "/dashboard", "/docs", "/redoc", "/asyncapi")
PREFIX = "/twin"


def mounted(path: str = PREFIX, journal: str = "memory:") -> tuple[FastAPI, App]:
    app, twin = FastAPI(), create_app(Settings(journal=journal))
    app.mount(path, twin)
    return app, twin


def rewritten(app: Any, root_path: str, path_of: Any) -> Any:
    """Return an application that is told of a path as some server and proxy would."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        path, raw_path = path_of(scope["path"]), path_of(scope["raw_path"].decode()).encode()
        await app({**scope, "root_path": root_path, "path": path, "raw_path": raw_path}, receive, send)

    return serve


def stripped(path: str) -> str:
    return path.removeprefix(PREFIX)


def kept(path: str) -> str:
    return path


def ways(journal: str = "memory:") -> dict[str, tuple[Any, App]]:
    """Return each way in which an application can come to be below /twin, and the twincast that is."""
    alone = create_app(Settings(journal=journal))
    behind, behind_twin = mounted(journal=journal)
    root, root_twin = mounted("/", journal)
    own = create_app(Settings(journal=journal, root_path=PREFIX))
    return {
        "a mount": mounted(journal=journal),
        "a server's root_path, which it puts back": (rewritten(alone, PREFIX, kept), alone),
        "a server's root_path, which a proxy took away": (rewritten(alone, PREFIX, stripped), alone),
        "a root_path with a slash": (rewritten(alone, f"{PREFIX}/", lambda p: f"{PREFIX}/{stripped(p)}"), alone),
        "a root_path with a slash, as it came": (rewritten(alone, f"{PREFIX}/", kept), alone),
        "a mount, behind a proxy that takes its own path away": (rewritten(behind, "/proxy", kept), behind_twin),
        "a mount at the root, behind such a one": (rewritten(root, PREFIX, stripped), root_twin),
        "a setting, and a proxy that leaves the path": (own, own),
        "a setting, and a proxy that takes it away": (rewritten(own, "", stripped), own),
    }


@asynccontextmanager
async def client(app: Any, twin: App) -> AsyncIterator[httpx.AsyncClient]:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HERE)
    async with twin.router.lifespan_context(twin), http:
        yield http


@pytest.mark.parametrize("way", ways())
async def test_every_path_is_served_below_a_prefix(way: str) -> None:
    app, twin = ways()[way]
    async with client(app, twin) as http:
        for path in (*PAGES, "/openapi.json", "/asyncapi.json", "/guides/api.md", "/healthz", "/readyz", "/api/status"):
            assert (await http.get(PREFIX + path)).status_code == 200, path
        stored = await http.post(f"{PREFIX}/api/data", json={"device_id": "lab/lamp", "value": 1})
        assert stored.json()["event"]["seq"] == 1
        assert (await http.get(f"{PREFIX}/api/data/lab%2Flamp")).json()["value"] == 1
        ordered = await http.post(f"{PREFIX}/api/control", json={"target": "lab/fan", "command": "start"})
        assert ordered.json()["dispatched"]
        told = await http.get(f"{PREFIX}/api/events", params={"since": f"{ordered.json()['event']['epoch']}:0"})
        assert [event["type"] for event in told.json()["events"]] == ["data_update", "control"]
        assert (await http.post(f"{PREFIX}/api/tickets", json={})).is_success
        assert (await http.get(f"{PREFIX}/api/audit")).json()["records"][0]["target"] == "lab/fan"
        assert (await http.delete(f"{PREFIX}/api/data/lab%2Flamp")).json()["deleted"]
        assert (await http.options(f"{PREFIX}/api/data")).headers["allow"] == "DELETE, GET, HEAD, OPTIONS, POST"
        assert (await http.put(f"{PREFIX}/api/data")).headers["allow"] == "DELETE, GET, HEAD, OPTIONS, POST"
        for path in (
            "/api/nothing",
            "/%2e%2e/api/data",
            "/dashboard/%2e%2e/settings.py",
            "/dashboard/..%2fapp.py",
            "x",
        ):
            assert (await http.get(PREFIX + path)).status_code == 404, path
        words = (await http.get(f"{PREFIX}/api/nothing")).json()["detail"]
        outer = "/proxy" if "behind a proxy that takes its own" in way else ""
        assert words == f"there is nothing at {outer}/twin/api/nothing; {outer}/twin/ lists what there is"
        servers = (await http.get(f"{PREFIX}/openapi.json")).json().get("servers")
        assert servers == [{"url": outer + PREFIX}]
        told = (await http.get(f"{PREFIX}/asyncapi.json")).json()["servers"]
        assert {server["pathname"] for server in told.values()} == {outer + PREFIX}


@pytest.mark.parametrize("way", ways())
async def test_who_has_a_slash_too_many_or_too_few_is_led_on_by_a_relative_address(way: str) -> None:
    app, twin = ways()[way]
    async with client(app, twin) as http:
        for path in ("/dashboard/", "/docs/", "/api/data/"):
            answer = await http.get(PREFIX + path)
            assert answer.status_code == 307, path
            assert answer.headers["location"] == f"../{path.strip('/').rpartition('/')[2]}"
            assert str(answer.next_request and answer.next_request.url) == HERE + PREFIX + path.rstrip("/")
        if way == "a setting, and a proxy that leaves the path":
            answer = await http.get(PREFIX)
            assert (answer.status_code, answer.headers["location"]) == (307, "twin/")


async def test_a_path_that_only_begins_like_the_prefix_is_not_below_it() -> None:
    app = create_app(Settings(journal="memory:", root_path=PREFIX))
    async with client(app, app) as http:
        assert (await http.get("/twindashboard")).status_code == 404
        assert (await http.get("/twins/dashboard")).status_code == 404


ABSOLUTE = re.compile(r"""(?:href|src|action|url|fetch|import|from)\s*[=(:]?\s*["'(]/[^/]""")


def test_no_page_and_no_script_names_an_absolute_path() -> None:
    package = Path(__file__).parents[2] / "twincast" / "web"
    files = [
        path for folder in ("pages", "dashboard", "client") for path in (package / folder).rglob("*") if path.is_file()
    ]
    read = [path for path in files if path.suffix in {".html", ".js", ".css", ".svg"} and "vendor" not in path.parts]
    assert len(read) > 50
    assert [path.name for path in read if ABSOLUTE.search(path.read_text())] == []
    assert (
        ABSOLUTE.search('<a href="/docs">') and ABSOLUTE.search('fetch("/api/status")') and ABSOLUTE.search("url(/x)")
    )


async def test_no_answer_leads_elsewhere_by_an_absolute_path_or_a_cookie() -> None:
    app, twin = mounted()
    async with client(app, twin) as http:
        for path in (*PAGES, "/dashboard/", "/api/status", "/api/data/", "/guides/api.md", "/openapi.json"):
            headers = (await http.get(PREFIX + path)).headers
            assert not headers.keys() & {"set-cookie", "link", "content-location"}, path
            assert not headers.get("location", "").startswith(("/", "http"))
            assert "/twin" not in headers.get("content-security-policy", "")


@pytest.mark.parametrize(
    ("given", "path"),
    [("", ""), ("/", ""), ("twin", "/twin"), ("/twin/", "/twin"), ("/my%20app", "/my app"), ("/a/b", "/a/b")],
)
def test_a_root_path_is_read_as_people_write_it(given: str, path: str) -> None:
    assert Settings(root_path=given).root_path == path


@pytest.mark.parametrize("given", ["/a//b", "/../a", "/a/.", "/a?b", "/a#b", "/a\nb", "//"])
def test_a_root_path_that_cannot_be_is_refused(given: str) -> None:
    if given == "//":
        assert Settings(root_path=given).root_path == ""
        return
    with pytest.raises(SettingUnusable, match="such as /twin"):
        Settings(root_path=given)


@pytest.mark.parametrize("way", ways())
async def test_a_login_is_asked_for_below_a_prefix_as_without_one(way: str, tmp_path: Path) -> None:
    app, twin = ways(f"sqlite:{tmp_path / 'journal.db'}")[way]
    secret = add_key(tmp_path / "journal.db", read=["*"])
    async with client(app, twin) as http:
        for path in (*PAGES, "/dashboard/app.js", "/openapi.json", "/guides/api.md", "/healthz"):
            assert (await http.get(PREFIX + path)).status_code == 200, path
        for path in ("/api/data", "/api/status", "/api/events", "/api/audit", "/api/data/x", "/nothing", "//api/data"):
            assert (await http.get(PREFIX + path)).status_code == 401, path
        for path in (
            "/dashboard/..%2fapi/data",
            "/dashboard%2f..%2fapi/data",
            "/pages/%2e%2e/api/data",
            "/docs/api/data",
        ):
            answer = await http.get(PREFIX + path)
            assert answer.status_code in {401, 404} and b"data_snapshot" not in answer.content, path
        answer = await http.get(f"{PREFIX}/api/data", headers=bearer(secret))
        assert (answer.status_code, answer.json()["data"]) == (200, {})


# -- real servers


def outer(path: str) -> tuple[FastAPI, Twincast]:
    """Return somebody's application, with twincast below a path and a WebSocket of its own."""
    twin = Twincast("memory:")
    app = FastAPI(lifespan=twin.lifespan)

    @app.post("/switch")
    async def switch() -> dict[str, int]:
        return {"seq": await twin.publish("lab/lamp", {"on": True})}

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello from the application")
        await socket.close()

    app.mount(path, twin.app)
    return app, twin


@pytest.fixture(scope="module", params=["/twin", "/my app/é"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An application that has twincast below a path, under plain uvicorn: where twincast is."""
    app, _ = outer(request.param)
    with serving(app) as url:
        yield url + quote(request.param)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        witness = Witness(page)
        missing: list[str] = []
        page.on("response", lambda answer: missing.append(answer.url) if answer.status >= 400 else None)
        yield page
        assert (witness.wrongs, missing) == ([], [])


def test_the_dashboard_is_live_below_a_prefix(address: str, page: Page) -> None:
    for where in ("/dashboard", "/dashboard/"):
        page.goto(address + where)
        expect(page.locator("#link-phase")).to_have_text("Live")
        httpx.post(httpx.URL(address).join("/switch")).raise_for_status()
        expect(page.get_by_text("lab/lamp").first).to_be_visible()
    eventually(lambda: page.evaluate("document.fonts.check('12px \"Plex Sans\"')"), "its typeface is there")
    page.locator("#rows").get_by_text("lab/lamp").first.click()
    expect(page).to_have_url(f"{address}/dashboard#lab%2Flamp")
    page.go_back()
    expect(page).to_have_url(f"{address}/dashboard")
    page.get_by_role("link", name="twincast").first.click()
    expect(page).to_have_url(f"{address}/")


def test_docs_execute_below_a_prefix(address: str, page: Page) -> None:
    page.goto(f"{address}/docs")
    call = page.locator("#operations-State-post_data")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table")).to_contain_text('"stored": true')
    expect(call.locator(".request-url")).to_contain_text(f"{address}/api/data")


def test_redoc_and_the_messages_are_shown_below_a_prefix(address: str, page: Page) -> None:
    page.goto(f"{address}/redoc")
    expect(page.get_by_text("/api/control").first).to_be_attached()
    page.goto(f"{address}/asyncapi")
    expect(page.get_by_role("heading", name="telemetry")).to_be_visible()


def test_the_first_page_leads_to_everything_and_says_its_own_address(address: str, page: Page) -> None:
    page.goto(f"{address}/")
    expect(page.locator("#counts")).to_be_visible()
    assert f" {address}/api/data" in page.locator("#curl").inner_text()
    links = page.get_by_role("link").evaluate_all("links => links.map(link => link.href)")
    assert len(links) > 15
    for link in links:
        assert link.startswith(address) and page.request.get(link).ok, link


def test_both_clients_find_a_server_below_a_prefix(address: str, page: Page) -> None:
    with connect(address) as client, Rest(unquote(address)) as rest, connect(unquote(f"{address}/")) as _:
        client.reached(client.publish("lab/python", 1))
        assert rest.data(["lab/python"])["data"]["lab/python"]["value"] == 1
        assert "lab/python" in [name for name, _ in rest.twins()]
        assert rest.delete("lab/python")["device_id"] == "lab/python"
    page.goto(f"{address}/")
    program = """async (address) => {
        const { Client } = await import(`${address}/dashboard/client.js`);
        const client = new Client({ url: `${address}/ws` });
        client.open();
        await client.publish("lab/javascript", 1);
        const state = client.twins.has("lab/javascript");
        client.close();
        return state;
    }"""
    assert page.evaluate(program, address) is True


def test_an_event_stream_comes_below_a_prefix(address: str) -> None:
    with httpx.stream("GET", f"{address}/api/events", headers={"Accept": "text/event-stream"}) as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data:"))
        assert json.loads(next(lines)[5:])["type"] == "hello"


def test_who_forgets_the_lifespan_reads_the_line_on_the_dashboard_and_in_the_clients_error(browser: Browser) -> None:
    app, _ = mounted()
    line = "FastAPI(lifespan=twin.lifespan)"
    with serving(app) as url, browser.new_context() as context:
        with pytest.raises(NotStarted, match=re.escape(line)), connect(f"{url}/twin", timeout_s=0):
            raise AssertionError
        with pytest.raises(NotStarted, match=re.escape(line)), Rest(f"{url}/twin") as rest:
            rest.status()
        page = context.new_page()
        page.goto(f"{url}/twin/dashboard")
        expect(page.get_by_text(line).first).to_be_visible()


# -- the fast edge


def test_the_fast_edge_leaves_an_application_that_mounts_twincast_to_the_portable_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Edge, "_has_said_so", False)
    app, _ = outer("/twin")
    with serving(app, ws=Edge) as url:
        for _ in range(2):
            with connect(f"{url}/twin") as client:
                client.reached(client.publish("lab/lamp", 1))
            assert httpx.get(f"{url}/twin/api/status").json()["edge"] == "portable"
            with open_websocket(f"{url.replace('http', 'ws')}/chat") as socket:
                assert socket.recv(timeout=DEADLINE_S) == "hello from the application"
    assert [record.message for record in caplog.records].count(ELSEWHERE) == 1


@pytest.mark.parametrize("edge", ["picows", "named", "portable"])
def test_a_proxy_has_a_server_below_a_path(edge: str, server_process: StartServer, tmp_path: Path) -> None:
    how = {} if edge == "picows" else {"UVICORN_ROOT_PATH": "/twin"}
    taken, left = server_process(edge=edge, **how), server_process(edge=edge, TWINCAST_ROOT_PATH="/left")
    port = free_port()
    with running(nginx(tmp_path, port, {"/twin/": f"{taken.url}/", "/left/": left.url}), tmp_path):
        for name, server in (("twin", taken), ("left", left)):
            url = f"http://127.0.0.1:{port}/{name}"
            eventually(lambda: _answers(f"{url}/api/status"), "nginx is up")  # noqa: B023
            for page in PAGES:
                assert httpx.get(url + page).status_code == 200
            with connect(url) as client:
                client.reached(client.publish("lab/lamp", 1))
            assert httpx.get(f"{url}/api/status").json()["edge"] == ("portable" if edge == "portable" else "picows")
            assert httpx.get(f"{url}/dashboard/").headers["location"] == "../dashboard"
            assert server.get("/api/data")["data"].keys() == {"lab/lamp"}
        assert httpx.get(f"{url}/api/data/lab%2Flamp").json()["value"] == 1


def test_pages_behind_a_proxy_that_takes_the_path_away_work_without_a_setting(
    server_process: StartServer, tmp_path: Path, page: Page
) -> None:
    server, port = server_process(), free_port()
    url = f"http://127.0.0.1:{port}/twin"
    with running(nginx(tmp_path, port, {"/twin/": f"{server.url}/"}), tmp_path):
        eventually(lambda: _answers(f"{url}/api/status"), "nginx is up")
        page.goto(f"{url}/dashboard")
        expect(page.locator("#link-phase")).to_have_text("Live")
        test_docs_execute_below_a_prefix(url, page)
        page.goto(url)
        expect(page).to_have_url(f"{url}/")
        expect(page.locator("#counts")).to_be_visible()
        page.goto("about:blank")


def test_the_first_page_is_whole_also_where_a_proxy_passes_it_on_without_its_slash(page: Page) -> None:
    twin = create_app(Settings(journal="memory:"))
    taking = rewritten(twin, "", lambda path: stripped(path) or "/")

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        await (twin if scope["type"] == "lifespan" else taking)(scope, receive, send)

    with serving(proxy) as url:
        page.goto(f"{url}/twin?a=1")
        expect(page).to_have_url(f"{url}/twin/?a=1")
        expect(page.locator("#counts")).to_be_visible()


def nginx(folder: Path, port: int, places: dict[str, str]) -> list[str]:
    """Write down how nginx has servers below paths, and return the command that runs it."""
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    upgrade = (
        "proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;"
        " proxy_set_header Connection $http_connection; proxy_buffering off;"
    )
    locations = "".join(f"location {path} {{ proxy_pass {url}; {upgrade} }}" for path, url in places.items())
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{}}"
        f" http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; {locations} }} }}"
    )
    return [needed("nginx"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
