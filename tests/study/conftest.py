import pytest

from tests.helpers.made_study import make_study


@pytest.fixture
def study_maker():
    return make_study
