import time

from tiny import TinyData, TinyTask, tiny_trainer

from lightning_chex.runs import TimeLimit


def test_no_epoch_begins_when_the_time_has_run_out_in_a_validation(tmp_path):
    class Slow(TinyTask):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            if not self.trainer.sanity_checking:
                time.sleep(1.2)

    trainer = tiny_trainer(tmp_path, TimeLimit("00:00:00:01"), max_epochs=50)
    task, data = Slow(), TinyData()
    trainer.fit(task, data)
    # whole epochs only, each with its validation, however slow the machine was before the first one ended
    assert trainer.current_epoch == 1
    assert trainer.global_step <= len(data.train_dataloader())
