"""How the tests of bad input look at an error."""

import pytest


def refusal(error, call, *said):
    """Call, which must raise `error` itself in one line that holds each of `said`."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert caught.type is error, message
    assert "\n" not in message
    for text in said:
        assert text in message, message
