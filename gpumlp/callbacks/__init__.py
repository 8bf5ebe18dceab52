"""Ready callbacks for ``Trainer.fit(callbacks=[…])``, and the class that one's own derive from.

What one of them writes is whole after each epoch, however the fit ends: finished, stopped,
interrupted or failed.  With ``fit(checkpoint=…, resume=True)`` all of them go on where they stood.
"""

from gpumlp.callbacks.logs import CSVLogger, LearningRateLogger
from gpumlp.callbacks.models import ModelCheckpoint
from gpumlp.callbacks.plateau import ReduceOnPlateau
from gpumlp.callbacks.tracking import MLflow, TensorBoard
from gpumlp.training.callbacks import EarlyStopping
from gpumlp.training.events import Callback

__all__ = [
    "CSVLogger", "Callback", "EarlyStopping", "LearningRateLogger", "MLflow", "ModelCheckpoint",
    "ReduceOnPlateau", "TensorBoard",
]  # fmt: skip
