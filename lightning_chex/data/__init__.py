"""Image files to samples to batches: one data set and its data module a file."""

from lightning_chex.class_names import DETECTORS, PATHOLOGIES
from lightning_chex.data.contract import DataError, LabelledDataset, Samples, XrayDataModule, XrayModel
from lightning_chex.data.datamodule import ChestXrayDataModule
from lightning_chex.data.images.lung_masks import lung_zones, zones_from_boxes, zones_from_probabilities
from lightning_chex.data.sample import collate, detector_label
from lightning_chex.data.sets.brixia import BrixIA, BrixIADataModule
from lightning_chex.data.sets.brixia_scores import rater_agreement
from lightning_chex.data.sets.chexpert import CheXpertDataModule
from lightning_chex.data.sets.cohen import CohenBrixIA, CohenDataModule
from lightning_chex.data.sets.folder import ImageFolderDataModule, UnlabelledXrays
from lightning_chex.data.sets.lungs import LungDataModule, LungSegmentation
from lightning_chex.data.sets.mimic import MIMICDataModule
from lightning_chex.data.sets.nih import NIHChestXray8, NIHDataModule
from lightning_chex.data.sets.padchest import PadChestDataModule
from lightning_chex.data.sets.rsna import RSNADataModule
from lightning_chex.data.sets.siim import SIIMDataModule
from lightning_chex.data.sets.synthetic import SyntheticCXR, SyntheticDataModule
from lightning_chex.data.sets.table import TableDataModule
from lightning_chex.data.sets.table_xrays import TableXrays
from lightning_chex.data.sets.tbx11k import TBX11KDataModule
from lightning_chex.data.sets.tuberculosis import TuberculosisDataModule
from lightning_chex.data.sets.vindr import VinBigDataDataModule, VinDrDataModule
from lightning_chex.data.sets.xrv import XRVDataModule, XRVXrays
from lightning_chex.data.transforms import ImageTransform

__all__ = [
    "DETECTORS",
    "PATHOLOGIES",
    "BrixIA",
    "BrixIADataModule",
    "CheXpertDataModule",
    "ChestXrayDataModule",
    "CohenBrixIA",
    "CohenDataModule",
    "DataError",
    "ImageFolderDataModule",
    "ImageTransform",
    "LabelledDataset",
    "LungDataModule",
    "LungSegmentation",
    "MIMICDataModule",
    "NIHChestXray8",
    "NIHDataModule",
    "PadChestDataModule",
    "RSNADataModule",
    "SIIMDataModule",
    "Samples",
    "SyntheticCXR",
    "SyntheticDataModule",
    "TBX11KDataModule",
    "TableDataModule",
    "TableXrays",
    "TuberculosisDataModule",
    "UnlabelledXrays",
    "XRVDataModule",
    "XRVXrays",
    "VinBigDataDataModule",
    "VinDrDataModule",
    "XrayDataModule",
    "XrayModel",
    "collate",
    "detector_label",
    "lung_zones",
    "rater_agreement",
    "zones_from_boxes",
    "zones_from_probabilities",
]
