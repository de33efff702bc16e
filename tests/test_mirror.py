"""Whoever reads a module finds its tests: under its name, in the folder of its room, or on the page that is named here.

What crosses rooms is in `tests/stories`.
"""

from pathlib import Path

import pytest

from tests.running import ROOT

PAGES = {
    "access/test_authenticator.py": ["core/keys"],
    "access/test_tickets.py": ["transports/rest/tickets"],
    "cli/test_live_table.py": ["cli/columns"],
    "cli/test_main.py": ["cli/options"],
    "cli/test_pair.py": ["cli/join", "journal/place", "server/qr"],
    "cli/test_watch.py": ["cli/keyboard"],
    "client/test_client.py": ["client/credential", "client/listener", "client/opening", "client/questions"],
    "client/test_connection.py": ["client/coverage"],
    "client/test_conversation_model.py": ["client/event_queue"],
    "client/test_cursor.py": ["client/file_lock", "client/progress", "client/readback", "client/resumption"],
    "client/test_docs_client.py": ["client/events"],
    "client/test_link_rules.py": ["client/backoff"],
    "client/test_spooled_outgoing.py": ["client/hold", "client/limits"],
    "client/test_sync.py": ["client/background"],
    "delivery/test_cast.py": ["wire/outgoing"],
    "delivery/test_feed.py": ["delivery/cache", "delivery/stream", "delivery/timer"],
    "delivery/test_session.py": ["delivery/ports"],
    "hub/test_hub.py": ["core/audit"],
    "inside/test_inside.py": ["inside/application", "inside/feeding", "inside/party", "inside/running", "inside/state"],
    "journal/sqlite/test_file.py": ["journal/sqlite/health", "journal/url"],
    "journal/sqlite/test_journal.py": ["journal/sqlite/reader"],
    "journal/sqlite/test_reserve.py": [
        *("journal/sqlite/access_file", "journal/sqlite/access_store", "journal/sqlite/key_tables"),
    ],
    "journal/sqlite/test_trim.py": ["journal/sqlite/trim_schedule"],
    "journal/test_contract.py": ["core/counters", "journal/sqlite/producers"],
    "server/test_exposure.py": ["server/lan"],
    "server/test_http.py": ["transports/compression"],
    "server/test_process.py": ["server/banner", "server/first_key"],
    "server/test_websocket.py": ["server/conversation"],
    "stories/test_access.py": ["transports/rest/audit"],
    "stories/test_http_dialects.py": ["server/http10"],
    "stories/test_prefixes.py": ["fast"],
    "stories/test_websocket_bounds.py": ["transports/websocket"],
    "test_app.py": ["lifespan", "transports/parts"],
    "test_errors.py": ["wire/problem"],
    "test_settings.py": ["environment", "settings/amounts", "settings/reading"],
    "test_stdio.py": ["cli/terminal"],
    "testing/test_kit.py": ["pytest_plugin", "testing/clock", "testing/keys", "testing/server", "testing/waiting"],
    "testing/test_proxy.py": ["testing/pipe"],
    "transports/documents/test_documents.py": [
        *("transports/documents/asyncapi", "transports/documents/conversation", "transports/documents/openapi"),
        *("transports/documents/parameters", "transports/documents/shapes"),
    ],
    "transports/rest/test_data.py": ["transports/operation", "transports/rest/control", "transports/rest/storing"],
    "transports/test_answer.py": ["transports/refusal"],
    "transports/test_front.py": ["transports/cors"],
    "transports/test_unrouted.py": ["transports/routes"],
    "wire/test_values.py": ["core/names"],
}
"""Test modules that hold modules of another name: those that only work together, or were split off from one. A module
that gets a test of its own leaves this list."""
LISTED = {module: page for page, modules in PAGES.items() for module in modules}
MODULES = [
    path.relative_to(ROOT / "twincast").with_suffix("").as_posix()
    for path in sorted((ROOT / "twincast").rglob("*.py"))
    if path.stem not in {"__init__", "__main__"}
]


def page_of(module: str) -> Path:
    path = Path(module)
    return ROOT / "tests" / path.parent / f"test_{path.name}.py"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_test_of_its_name_or_its_page_is_listed(module: str) -> None:
    assert page_of(module).exists() != (module in LISTED), (
        f"{module}: {page_of(module).relative_to(ROOT)} exists, so it needs no place in PAGES"
        if module in LISTED
        else f"twincast/{module}.py has no {page_of(module).relative_to(ROOT)}"
    )


def test_the_list_names_what_there_is() -> None:
    assert sorted(LISTED) == sorted(module for modules in PAGES.values() for module in modules), "each once"
    assert set(LISTED) <= set(MODULES)
    assert [page for page in PAGES if not (ROOT / "tests" / page).exists()] == []
