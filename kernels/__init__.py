"""CUDA C++ sources for `gpumlp.backends.cuda.source`.  As a package, every install has them."""
