"""``python -m gpumlp``: the command line, if the scripts of this Python are not on the PATH."""

from gpumlp.cli import main

if __name__ == "__main__":
    main()
