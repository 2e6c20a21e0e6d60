"""Every metric of `spleen evaluate`: its name in files, its unit, and whether higher or lower is better."""

from dataclasses import dataclass
from typing import Literal

Group = Literal["overlap", "voxel as a test", "surface", "volume"]


@dataclass(frozen=True)
class Metric:
    """A metric in words. `better` is "zero" where the value nearest to 0 is best, "neither" for a plain quantity."""

    name: str
    label: str
    """Shorter than the name, with the unit."""
    group: Group
    better: Literal["higher", "lower", "zero", "neither"]
    meaning: str
    number_format: str = ".4f"

    def badness(self, value: float) -> float:
        """A number that is larger for a worse value. Raises ValueError for a metric that is no score."""
        if self.better == "neither":
            raise ValueError(f"{self.name} is a quantity: no value of it is better than another")
        return {"higher": -value, "lower": value, "zero": abs(value)}[self.better]


METRICS = (
    Metric("dice", "Dice", "overlap", "higher", "overlap of both masks"),
    Metric("jaccard", "Jaccard", "overlap", "higher", "intersection over union"),
    Metric("sensitivity", "sensitivity", "overlap", "higher", "fraction of the organ found"),
    Metric("specificity", "specificity", "overlap", "higher", "fraction of the background kept"),
    Metric("precision", "precision", "overlap", "higher", "fraction of the prediction that is organ"),
    Metric(
        "negative_predictive_value",
        "neg. predictive value",
        "voxel as a test",
        "higher",
        "fraction of predicted background that is right",
    ),
    Metric("accuracy", "accuracy", "voxel as a test", "higher", "fraction of voxels labelled correctly"),
    Metric("likelihood_ratio_positive", "LR+", "voxel as a test", "higher", "true- over false-positive rate", ",.4g"),
    Metric("likelihood_ratio_negative", "LR−", "voxel as a test", "lower", "false- over true-negative rate", ".4g"),
    Metric(
        "post_test_probability_positive", "post-test prob. pos.", "voxel as a test", "higher", "organ, where predicted"
    ),
    Metric(
        "post_test_probability_negative",
        "post-test prob. neg.",
        "voxel as a test",
        "lower",
        "organ, where not predicted",
        ".2e",
    ),
    Metric("hausdorff95_mm", "HD95, mm", "surface", "lower", "95th percentile of surface distances", ".2f"),
    Metric("hausdorff_mm", "Hausdorff, mm", "surface", "lower", "largest surface distance", ".2f"),
    Metric("average_surface_distance_mm", "surface distance, mm", "surface", "lower", "mean over both surfaces", ".3f"),
    Metric("surface_dice", "surface Dice", "surface", "higher", "fraction of the surface within tolerance"),
    Metric("volume_prediction_mm3", "volume prediction, mm³", "volume", "neither", "", ",.0f"),
    Metric("volume_reference_mm3", "volume reference, mm³", "volume", "neither", "", ",.0f"),
    Metric("volume_prediction_ml", "volume prediction, ml", "volume", "neither", "", ",.2f"),
    Metric("volume_reference_ml", "volume reference, ml", "volume", "neither", "", ",.2f"),
    Metric("volume_error_mm3", "volume error, mm³", "volume", "zero", "prediction − reference", "+,.0f"),
    Metric("volume_error_relative", "volume error, relative", "volume", "zero", "error / reference", "+.4f"),
)
BY_NAME = {metric.name: metric for metric in METRICS}
SURFACE_METRICS = tuple(metric.name for metric in METRICS if metric.group == "surface")
