import csv

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from tiny import TinyData, TinyTask, tiny_trainer

from lightning_chex.explanations import PredictionWriter


class Predicting(TinyTask):
    def predict_step(self, batch, batch_idx):
        output = self(batch["image"])
        prediction = output.sigmoid() if self.class_names else output[:, 0]
        return {"image_id": batch["image_id"], "prediction": prediction}


class PredictedData(TinyData):
    def predict_dataloader(self):
        return self.test_dataloader()


@pytest.mark.parametrize("score", [False, True])
def test_a_row_per_image_in_the_run_folder(tmp_path, score):
    task, data, writer = Predicting(() if score else ("left", "right")), PredictedData(score=score), PredictionWriter()
    logger = CSVLogger(tmp_path, name="runs", version="one")
    tiny_trainer(tmp_path, writer, logger=logger).predict(task, data, return_predictions=False)
    assert writer.path == tmp_path / "runs" / "one" / "predictions.csv"
    header, *rows = csv.reader(writer.path.open())
    assert header == (["image_id", "severity"] if score else ["image_id", "left", "right"])
    assert [row[0] for row in rows] == data.test.ids
    with torch.no_grad():
        output = task.eval().model(data.test.images)
    expected = output if score else output.sigmoid()
    written = torch.tensor([[float(value) for value in row[1:]] for row in rows])
    torch.testing.assert_close(written, expected, rtol=1e-5, atol=1e-5)


def test_what_was_predicted_before_a_failure_stays(tmp_path):
    data, writer = PredictedData(), PredictionWriter()
    data.test.broken_at = 5
    with pytest.raises(OSError, match="image 5"):
        tiny_trainer(tmp_path, writer).predict(Predicting(), data, return_predictions=False)
    assert writer.path == tmp_path / "predictions.csv" and not writer.path.exists()  # a table of that name is complete
    kept = tmp_path / "predictions_unfinished.csv"
    assert [row[0] for row in csv.reader(kept.open())] == ["image_id", *data.test.ids[:4]]


def test_predicting_again_begins_a_new_table(tmp_path):
    for _ in range(2):
        writer = PredictionWriter()
        tiny_trainer(tmp_path, writer).predict(Predicting(), PredictedData(), return_predictions=False)
    assert len(writer.path.read_text().splitlines()) == 1 + 6


def test_other_stages_write_no_table(tmp_path):
    writer = PredictionWriter()
    tiny_trainer(tmp_path, writer).validate(TinyTask(), TinyData(), verbose=False)
    assert writer.path is None and not list(tmp_path.iterdir())
