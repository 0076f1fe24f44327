"""The model to evaluate, from a trainer and a checkpoint."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.data.contract import XrayDataModule, outputs_of
from lightning_chex.evaluation.methods import bottleneck_layer
from lightning_chex.evaluation.subject import Subject
from lightning_chex.evaluation.untrained import builder, trained_on_shuffled_labels
from lightning_chex.lightning_private import callbacks_of
from lightning_chex.maps import check_scores, load_weights, network_of, origin, saved_statistics, trained_size


def check_trainer(trainer: pl.Trainer) -> None:
    """Raise a MisconfigurationException for several processes, and for weights in half or double precision."""
    if trainer.world_size > 1:
        raise MisconfigurationException(
            f"evaluate runs in one process, not in {trainer.world_size}: give --trainer.devices 1 (only explain "
            "can use several)"
        )
    if str(trainer.precision) in ("bf16-true", "16-true", "64-true"):
        raise MisconfigurationException(
            f"trainer.precision={trainer.precision!r} is not supported by evaluate: give 32-true, bf16-mixed or "
            "16-mixed"
        )


def subject_of(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    data: XrayDataModule,
    ckpt_path: str | Path | None,
    network: str,
    shuffled_ckpt: str | None,
) -> Subject:
    """Load trained weights and move the model to the trainer's device; for the arguments see ``ChexTrainer.evaluate``.

    Raises:
        CheckpointError: see `load_weights`.
        MisconfigurationException: it predicts several scores, or its outputs are not those of the checkpoint.
    """
    callbacks = callbacks_of(trainer)
    device = trainer.strategy.root_device
    precision = trainer.precision_plugin
    path = None if ckpt_path is None else Path(ckpt_path).expanduser()
    checkpoint = {} if path is None else load_weights(model, path)
    outputs = outputs_of(model, data)
    size = data.size
    check_scores(model, outputs)
    model.to(device)
    module = network_of(model, network)
    saved = saved_statistics(checkpoint, callbacks)
    attributors: list[Any] = []
    for callback in callbacks:
        # of IBACallback and of a user's own callbacks alike
        attributors += getattr(callback, "attributors", {}).values()

    def move(batch: dict[str, Any]) -> dict[str, Any]:
        moved = trainer.strategy.batch_to_device(batch, device)
        return moved | {"image": precision.convert_input(moved["image"])}

    return Subject(
        network=module,
        class_names=outputs.class_names,
        layer=bottleneck_layer(attributors),
        saved=saved,
        checkpoint=origin(path, model),
        device=device,
        move=move,
        precision=precision.forward_context,
        precision_name=str(trainer.precision),
        network_name=network,
        build=builder(model, network),
        shuffled=None if shuffled_ckpt is None else trained_on_shuffled_labels(model, module, shuffled_ckpt),
        trained_size=None if size is None else trained_size(checkpoint, saved, module, size, device),
    )
