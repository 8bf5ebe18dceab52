"""gpumlp beside other libraries: their arrays, modules and files.

`MLP`'s and `Trainer`'s methods take arrays of NumPy, CuPy, torch, JAX, RAPIDS, or of any library
with DLPack or ``__cuda_array_interface__``, and `forward` and `predict` give back the kind that x
is: see `gpumlp.arrays`.  The other way, ``torch.from_dlpack(net.layers[0].W)`` and
``jax.numpy.from_dlpack(net.layers[0].W)`` look at the memory of a layer; what is written to
torch's tensor is written to the layer.  On a GPU do so after ``net.backend.synchronize()``.

`gpumlp.interop.torch` has the kernels as operators of torch's, and networks to and from its
modules; `gpumlp.interop.onnx` writes them as ONNX.
"""
