"""What all tests of the commands share."""

import pytest

from gpumlp.plots import write_png

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _quick_files(monkeypatch, no_waiting_for_the_disk):
    """history.png and search.png are not rendered, which is most of the time of short trainings.

    `tests/plots/` renders such figures, and `tests/io/` waits for the disk.
    """

    def write(figure, path):
        figure.savefig = lambda file, **_: file.write(PNG)
        write_png(figure, path)

    monkeypatch.setattr("gpumlp.plots.training.write_png", write)
    monkeypatch.setattr("gpumlp.cli.results.write_png", write)
