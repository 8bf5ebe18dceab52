"""ONNX models in both implementations: onnxruntime, and onnx's reference."""

import onnxruntime
from onnx.reference import ReferenceEvaluator


def session(model):
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def outputs(model, inputs):
    """The outputs of both implementations, by name."""
    names = [output.name for output in model.graph.output]
    for runtime in (session(model), ReferenceEvaluator(model)):
        yield dict(zip(names, runtime.run(None, inputs), strict=True))
