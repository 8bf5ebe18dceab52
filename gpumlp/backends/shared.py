"""What copies and pickles make of a backend."""

from __future__ import annotations

from typing import Any, Self


class Shared:
    """A backend is a device's, and no part of what uses it: copies are itself, pickles its name."""

    name: str
    precision: str

    def __copy__(self) -> Self:
        """The backend itself."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The backend itself."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """The backend of the same name, where it is unpickled."""
        from gpumlp.backends import get_backend

        return get_backend, (self.name, self.precision)
