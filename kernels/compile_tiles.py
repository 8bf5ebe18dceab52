"""Write kernels/cubins: the machine code of weight_update.py for each optimizer of the library.

    python kernels/compile_tiles.py

It needs gpumlp and ``pip install "cuda-tile[tileiras]"``, and takes a minute.  Code that is up to
date is left as it is, and code of other texts is removed.
"""

import lzma
from pathlib import Path

from gpumlp import OPTIMIZERS
from gpumlp.backends.cuda.tiles import ARCHITECTURES, compiled, weight_update

FOLDER = Path(__file__).parent / "cubins"


def main() -> None:
    """Compile what is missing."""
    wanted = set()
    for optimizer in OPTIMIZERS.values():
        source = weight_update(optimizer)
        for architecture in ARCHITECTURES.values() if source else ():
            path = FOLDER / f"{source.stem}-{architecture}.cubin.xz"
            wanted.add(path)
            if not path.exists():
                path.write_bytes(lzma.compress(compiled(source, architecture), preset=9))
    for path in set(FOLDER.iterdir()) - wanted:
        path.unlink()


if __name__ == "__main__":
    main()
