"""A check of errors, for tests of invalid input."""

import pytest


def refusal(error, call, *said):
    """Check that `call` raises exactly `error`, in one line that contains each text of `said`."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert caught.type is error, message
    assert "\n" not in message
    for text in said:
        assert text in message, message
