"""The setting impl.processes; connected processes are tested where they train."""

import pytest

from tlc_jax.core import distributed
from tlc_jax.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", None),
        ("one", None),
        ("localhost:1234,2,1", ("localhost:1234", 2, 1)),
        ("[::1]:1234,4,0", ("[::1]:1234", 4, 0)),
        ("host:1, 2 , 1", ("host:1", 2, 1)),
    ],
)
def test_processes_are_read(text, expected):
    assert distributed.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "two", "host:1", "host:1,2", "host,2,1", ":1,2,1", "host:x,2,1", "h:1,2,2", "h:1,2,-1"],
)
def test_wrong_processes_are_refused(text):
    with pytest.raises(InputError, match="write auto, one, or HOST:PORT,COUNT,INDEX"):
        distributed.parse(text)


def test_a_run_of_one_process_gathers_its_own_values():
    assert not distributed.several() and distributed.first() and distributed.count() == 1
    assert distributed.gather_texts("a") == [distributed.share("a")] == ["a"]
    assert distributed.gather([1.5, 2.5]).tolist() == [[1.5, 2.5]]
    with pytest.raises(InputError, match="wrong"):
        distributed.agree_on_error(InputError("wrong"))
