"""Ready callbacks for ``Trainer.fit(callbacks=[…])``, and the base class for your own.

Their files are complete after each epoch, however the fit ends: finished, stopped, interrupted or
with an error.  With ``fit(checkpoint=…, resume=True)`` all callbacks continue where they stopped.
"""

from gpumlp.callbacks.logs import CSVLogger, LearningRateLogger, MLflow, TensorBoard
from gpumlp.callbacks.monitoring import ModelCheckpoint, ReduceOnPlateau
from gpumlp.training.callbacks import EarlyStopping
from gpumlp.training.events import Callback

__all__ = [
    "CSVLogger", "Callback", "EarlyStopping", "LearningRateLogger", "MLflow", "ModelCheckpoint",
    "ReduceOnPlateau", "TensorBoard",
]  # fmt: skip
