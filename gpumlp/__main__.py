"""``python -m gpumlp``: the command line, for a Python whose scripts are not on the PATH."""

from gpumlp.cli import main

if __name__ == "__main__":
    main()
