"""Names of what a table leaves behind."""

import hashlib

from tlresearch.experiment import Experiment


def output_name(experiment: Experiment) -> str:
    """Name of the files: the table's; with overrides also their hash, so nothing is overwritten."""
    return (experiment.outputs or experiment.name) + overrides_suffix(experiment)


def overrides_suffix(experiment: Experiment) -> str:
    """`+1a2b3c4d`, from the overrides; empty without."""
    if not experiment.overrides:
        return ""
    text = "\n".join(sorted(experiment.overrides))
    return f"+{hashlib.sha256(text.encode()).hexdigest()[:8]}"
