"""Segment an organ in medical volumes slice by slice: train, predict, score, compare.

```python
import spleen

run = spleen.train("data=phantom", axis="axial", epochs=2)
prediction = spleen.load_model(run.folder).predict(array, affine)
```

The names below are imported at first use, so that `import spleen` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spleen.annotation.propagate import propagate as propagate
    from spleen.annotation.suggest import suggest_slices as suggest_slices
    from spleen.data.download.fetch import fetch as fetch
    from spleen.errors import InputError as InputError
    from spleen.evaluation.compare import Comparison as Comparison
    from spleen.evaluation.compare import compare as compare
    from spleen.evaluation.evaluate import Evaluation as Evaluation
    from spleen.evaluation.evaluate import evaluate as evaluate
    from spleen.exploration.explore import Exploration as Exploration
    from spleen.exploration.explore import explore as explore
    from spleen.followup.followup import follow_up as follow_up
    from spleen.followup.result import FollowUp as FollowUp
    from spleen.inference.calibrate import calibrate as calibrate
    from spleen.inference.export import export as export
    from spleen.inference.model import Model as Model
    from spleen.inference.model import Prediction as Prediction
    from spleen.inference.model import load_model as load_model
    from spleen.inference.predict import predict as predict
    from spleen.inference.settings import PredictSettings as PredictSettings
    from spleen.runs.api import TrainedRun as TrainedRun
    from spleen.runs.api import train as train
    from spleen.runs.results.results import StudyResults as StudyResults
    from spleen.runs.results.results import results as results

__version__ = "0.1.0"

_MODULE_OF = {
    "Comparison": "evaluation.compare",
    "Evaluation": "evaluation.evaluate",
    "Exploration": "exploration.explore",
    "FollowUp": "followup.result",
    "InputError": "errors",
    "Model": "inference.model",
    "PredictSettings": "inference.predict",
    "Prediction": "inference.model",
    "StudyResults": "runs.results.results",
    "TrainedRun": "runs.api",
    "calibrate": "inference.calibrate",
    "compare": "evaluation.compare",
    "evaluate": "evaluation.evaluate",
    "explore": "exploration.explore",
    "export": "inference.export",
    "fetch": "data.download.fetch",
    "follow_up": "followup.followup",
    "load_model": "inference.model",
    "predict": "inference.predict",
    "propagate": "annotation.propagate",
    "results": "runs.results.results",
    "suggest_slices": "annotation.suggest",
    "train": "runs.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'spleen' has no attribute '{name}'")
    value = getattr(import_module(f"spleen.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
