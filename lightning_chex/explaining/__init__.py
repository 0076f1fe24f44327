"""Shared parts of the callback, explain and evaluate: model, statistics, checkpoints, cases and the map store."""

from lightning_chex.checkpoints import CheckpointError, is_address, read_checkpoint
from lightning_chex.explaining.cases import Cases, LungFinder, RegionKind, Regions, cases_of, grey_pictures, region_kind
from lightning_chex.explaining.checkpoint import (
    COURSE,
    LINE_UP,
    OTHERS,
    check_fits,
    load_weights,
    saved_statistics,
    trained_size,
)
from lightning_chex.explaining.chosen_targets import ChosenTargets
from lightning_chex.explaining.explained_model import (
    check_model,
    check_output,
    check_scores,
    check_target,
    network_of,
)
from lightning_chex.explaining.feature_statistics import Saved, feature_statistics, observe, training_batches
from lightning_chex.explaining.lung_network import LungNetwork
from lightning_chex.explaining.map_folder import (
    FORMAT,
    Drawn,
    MapFolder,
    entries_of,
    holds_maps,
    map_name,
    read_index,
    read_saliency,
    to_pixels,
)
from lightning_chex.explaining.map_store import Added, Entry, Key, MapStore, read_entries, read_map
from lightning_chex.explaining.model_outputs import (
    Meaning,
    agreed,
    column_output,
    explain_exclusive,
    explain_score,
    explained_labels,
    given_meaning,
    infer_meaning,
    named_batch,
    named_classes,
    repeated,
)
from lightning_chex.explaining.provenance import describe, digest_of_folder, origin, versions
from lightning_chex.explaining.several_checkpoints import Given, named_checkpoints, paths_of, read_checkpoints
from lightning_chex.explaining.subject import Images, Shuffled, Subject, Weights, tuning_half

__all__ = [
    "Added", "COURSE", "Cases", "CheckpointError", "ChosenTargets", "Drawn", "Entry", "FORMAT", "Given", "Images",
    "Key", "LINE_UP", "LungFinder", "LungNetwork", "MapFolder", "MapStore", "Meaning", "OTHERS", "RegionKind",
    "Regions", "Saved", "Shuffled", "Subject", "Weights", "agreed", "cases_of", "check_fits", "check_model",
    "check_output", "check_scores", "check_target", "column_output", "describe", "digest_of_folder", "entries_of",
    "explain_exclusive", "explain_score", "explained_labels", "feature_statistics", "given_meaning", "grey_pictures",
    "holds_maps", "infer_meaning", "is_address", "load_weights", "map_name", "named_batch", "named_checkpoints",
    "named_classes", "network_of", "observe", "origin", "paths_of", "read_checkpoint", "read_checkpoints",
    "read_entries", "read_index", "read_map", "read_saliency", "region_kind", "repeated", "saved_statistics",
    "to_pixels", "trained_size", "training_batches", "tuning_half", "versions",
]  # fmt: skip
