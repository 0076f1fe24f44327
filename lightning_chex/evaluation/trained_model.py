"""The model to evaluate, out of a trainer and a checkpoint."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.data.contract import XrayDataModule, outputs_of
from lightning_chex.evaluation.methods import bottleneck_layer
from lightning_chex.evaluation.untrained import builder, trained_on_shuffled_labels
from lightning_chex.explaining import (
    Subject,
    check_scores,
    load_weights,
    network_of,
    origin,
    saved_statistics,
    trained_size,
)
from lightning_chex.lightning_private import callbacks_of


def check_trainer(trainer: pl.Trainer) -> None:
    """Raise a MisconfigurationException for several processes and for weights of another precision."""
    if trainer.world_size > 1:
        raise MisconfigurationException(
            f"evaluate runs in one process, not in {trainer.world_size}: give --trainer.devices 1 (explain shares "
            "images out over several)"
        )
    if str(trainer.precision) in ("bf16-true", "16-true", "64-true"):
        raise MisconfigurationException(
            f"trainer.precision={trainer.precision!r} is not for evaluate: give 32-true, bf16-mixed or 16-mixed"
        )


def subject_of(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    data: XrayDataModule,
    ckpt_path: str | Path | None,
    network: str,
    shuffled_ckpt: str | None,
) -> Subject:
    """Bring a model with its trained weights to the trainer's device; for the arguments see ``ChexTrainer.evaluate``.

    Raises:
        CheckpointError: see `load_weights`.
        MisconfigurationException: it predicts several scores, or its outputs are not those of the checkpoint.
    """
    callbacks, device, precision = callbacks_of(trainer), trainer.strategy.root_device, trainer.precision_plugin
    path = None if ckpt_path is None else Path(ckpt_path).expanduser()
    checkpoint = {} if path is None else load_weights(model, path)
    outputs, size = outputs_of(model, data), data.size
    check_scores(model, outputs)
    model.to(device)
    found, saved = network_of(model, network), saved_statistics(checkpoint, callbacks)

    def move(batch: dict[str, Any]) -> dict[str, Any]:
        moved = trainer.strategy.batch_to_device(batch, device)
        return moved | {"image": precision.convert_input(moved["image"])}

    return Subject(
        network=found,
        class_names=outputs.class_names,
        layer=bottleneck_layer(own for callback in callbacks for own in getattr(callback, "attributors", {}).values()),
        saved=saved,
        checkpoint=origin(path, model),
        device=device,
        move=move,
        precision=precision.forward_context,
        precision_name=str(trainer.precision),
        network_name=network,
        build=builder(model, network),
        shuffled=None if shuffled_ckpt is None else trained_on_shuffled_labels(model, found, shuffled_ckpt),
        trained_size=None if size is None else trained_size(checkpoint, saved, found, size, device),
    )
