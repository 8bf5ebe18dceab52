"""CUDA C++ sources, read by gpumlp.cuda.source; a package so that every install finds them."""
