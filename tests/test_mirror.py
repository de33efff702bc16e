"""Whoever reads a module finds its tests: under its name, in the folder of its room, or on the page that is named here.

What crosses rooms is in `tests/stories`.
"""

from pathlib import Path

import pytest

from tests.running import ROOT

PAGES = {
    "access/test_authenticator.py": ["core/keys"],
    "access/test_tickets.py": ["transports/rest/tickets"],
    "cli/test_get.py": ["cli/state_table"],
    "cli/test_live_table.py": ["cli/columns"],
    "cli/test_main.py": ["cli/options"],
    "cli/test_pair.py": ["cli/join", "journal/place", "server/qr"],
    "cli/test_send.py": ["cli/lines"],
    "cli/test_watch.py": ["cli/keyboard", "cli/lasting", "cli/screen"],
    "client/test_client.py": ["client/credential", "client/listener", "client/opening", "client/questions"],
    "client/test_connection.py": ["client/coverage", "client/message"],
    "client/test_conversation_model.py": ["client/event_queue"],
    "client/test_cursor.py": ["client/file_lock", "client/progress", "client/readback", "client/resumption"],
    "client/test_docs_client.py": ["client/events"],
    "client/test_link_rules.py": ["client/backoff"],
    "client/test_spool_file.py": ["client/spool_line"],
    "client/test_spooled_outgoing.py": ["client/hold", "client/limits", "client/spool_window"],
    "client/test_sync.py": ["client/background", "client/thread_callback"],
    "delivery/test_cast.py": ["wire/outgoing"],
    "delivery/test_feed.py": ["delivery/cache", "delivery/stream", "delivery/timer"],
    "delivery/test_session.py": ["delivery/ports"],
    "hub/test_hub.py": ["core/audit"],
    "inside/test_inside.py": ["inside/application", "inside/feeding", "inside/party", "inside/running", "inside/state"],
    "journal/jetstream/test_access_log.py": ["journal/jetstream/key_verbs"],
    "journal/sqlite/test_file.py": [
        *("journal/sqlite/checkpoint", "journal/sqlite/health", "journal/sqlite/idempotency"),
        *("journal/sqlite/opening", "journal/url"),
    ],
    "journal/sqlite/test_schema.py": ["journal/sqlite/generations"],
    "journal/jetstream/test_fold.py": ["journal/jetstream/commit"],
    "journal/jetstream/test_move_in.py": ["journal/sqlite/source"],
    "journal/jetstream/test_journal.py": [
        *("journal/jetstream/reader", "journal/jetstream/unstored", "journal/jetstream/writer"),
    ],
    "journal/sqlite/history/test_erasing.py": ["journal/sqlite/erasures"],
    "journal/sqlite/history/test_build.py": ["journal/sqlite/history/layout", "journal/sqlite/history/times"],
    "journal/sqlite/history/test_queries.py": [
        *("journal/sqlite/history/events", "journal/sqlite/history/history", "journal/sqlite/history/names"),
        *("journal/sqlite/history/open_end", "journal/sqlite/history/pages", "journal/sqlite/history/partition"),
        *("journal/sqlite/history/parts", "journal/sqlite/history/buckets", "journal/sqlite/history/positions"),
        *("journal/sqlite/history/series", "journal/sqlite/history/sorted_run", "journal/sqlite/history/states"),
        *("journal/sqlite/history/ranges", "journal/sqlite/history/sums"),
    ],
    "journal/sqlite/history/test_schedule.py": [
        *("journal/sqlite/history/apart", "journal/sqlite/history/catalog", "journal/sqlite/history/closed_log"),
        "journal/sqlite/history/closer",
        *("journal/sqlite/history/files", "journal/sqlite/history/process", "journal/sqlite/history/span"),
        *("journal/sqlite/history/writing_out", "journal/sqlite/partitions"),
    ],
    "journal/sqlite/history/test_summaries.py": ["journal/sqlite/history/summary"],
    "journal/sqlite/test_backup.py": ["journal/sqlite/backup_manifest", "journal/sqlite/history/merge"],
    "journal/sqlite/test_backup_parts.py": ["journal/sqlite/backup_folder"],
    "journal/sqlite/test_journal.py": [
        *("journal/sqlite/failing", "journal/sqlite/open_journal", "journal/sqlite/reader"),
        *("journal/sqlite/stored_log", "journal/sqlite/upkeep"),
    ],
    "journal/sqlite/test_reserve.py": [
        *("journal/sqlite/access_file", "journal/sqlite/access_store", "journal/sqlite/key_tables"),
        "journal/sqlite/transactions",
    ],
    "journal/sqlite/test_trim.py": ["journal/sqlite/trim_schedule"],
    "journal/sqlite/test_pairing.py": ["journal/key_rules"],
    "journal/test_scanned_history.py": ["journal/memory_history"],
    "journal/test_contract.py": ["core/counters", "journal/sqlite/producers", "journal/stores"],
    "server/test_exposure.py": ["server/lan"],
    "server/test_http.py": ["transports/compression"],
    "cluster/test_local.py": ["journal/local"],
    "server/test_process.py": ["server/banner", "server/first_key"],
    "server/test_websocket.py": ["server/conversation"],
    "server/test_workers.py": ["server/crew", "server/worker"],
    "stories/test_access.py": ["transports/rest/audit"],
    "stories/test_prefixes.py": ["fast"],
    "stories/test_websocket_bounds.py": ["transports/websocket"],
    "test_app.py": ["transports/parts"],
    "test_errors.py": ["wire/problem"],
    "test_settings.py": ["environment", "settings/amounts", "settings/reading", "settings/shared"],
    "test_stdio.py": ["cli/tables", "cli/terminal", "console"],
    "testing/test_kit.py": ["pytest_plugin", "testing/clock", "testing/keys", "testing/server", "testing/waiting"],
    "testing/test_proxy.py": ["testing/pipe"],
    "transports/documents/test_documents.py": [
        *("transports/documents/asyncapi", "transports/documents/conversation", "transports/documents/openapi"),
        *("transports/documents/history", "transports/documents/parameters", "transports/documents/shapes"),
    ],
    "transports/rest/test_data.py": ["transports/operation", "transports/rest/control", "transports/rest/storing"],
    "transports/rest/test_history.py": ["transports/rest/asking"],
    "transports/test_answer.py": ["transports/refusal"],
    "transports/test_front.py": ["transports/cors"],
    "transports/test_nats.py": [
        *("transports/nats/bridge", "transports/nats/incoming", "transports/nats/outgoing", "transports/nats/outlet"),
        "transports/nats/serving",
    ],
    "transports/test_unrouted.py": ["transports/routes"],
    "wire/test_implementation.py": ["pure"],
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
