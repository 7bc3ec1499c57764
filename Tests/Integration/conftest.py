"""How pytest runs these tests: side by side, classes with servers of their own as one piece, the longest first. A test that fails
prints the logs of its servers and of proxyd."""
import pytest

from harness import TemporaryFolder

# What takes longest begins first, so that nothing long is left at the end: modules, in the order of their longest piece.
LONGEST = ["test_sql", "test_clients", "test_logins", "test_matrix", "test_chains", "test_auth_http", "test_perdition",
           "test_perdition_log", "test_fleet", "test_faults", "test_directories", "test_drain", "test_fleet_faults"]


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the marks
def pytest_collection_modifyitems(items):
    for item in items:
        # Servers that a class has started serve all of its tests.
        if "setUpClass" in {name for kind in item.cls.__mro__[:-1] for name in vars(kind) if kind.__module__ != "unittest.case"}:
            item.add_marker(pytest.mark.xdist_group(f"{item.module.__name__}.{item.cls.__name__}"))
    items.sort(key=lambda item: LONGEST.index(item.module.__name__) if item.module.__name__ in LONGEST else len(LONGEST))


def pytest_runtest_logstart():
    TemporaryFolder.gone.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    report = (yield).get_result()
    if report.failed:
        logs = list(TemporaryFolder.gone)
        for folder in TemporaryFolder.present:
            logs += folder.logs()
        report.sections += [(f"end of {name}", text) for name, text in logs]
