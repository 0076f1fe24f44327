import pytest
from small_evaluations import trained


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("classifier"), "pathologies")


@pytest.fixture(scope="session")
def detectors(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("detectors"), "detectors")


@pytest.fixture(scope="session")
def regressor(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("regressor"), "severity")
