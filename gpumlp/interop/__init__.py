"""gpumlp with other libraries: their arrays, modules and files.

The methods of `MLP` and `Trainer` accept arrays of NumPy, CuPy, torch, JAX, RAPIDS, or of any
library with DLPack or ``__cuda_array_interface__``. `forward` and `predict` return the same kind of
array as x: see `gpumlp.arrays`. In the other direction, ``torch.from_dlpack(net.layers[0].W)`` and
``jax.numpy.from_dlpack(net.layers[0].W)`` share the memory of a layer; writing to torch's tensor
writes to the layer. On a GPU, call ``net.backend.synchronize()`` first.

`gpumlp.interop.torch` offers the kernels as torch operators and converts networks from and to torch
modules; `gpumlp.interop.onnx` exports networks to ONNX.
"""
