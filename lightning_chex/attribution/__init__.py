"""Saliency maps from any torch model: the information-bottleneck family, gradient methods and controls."""

from lightning_chex.attribution.attributor import NOT_CONVERGED, Attribution, Attributor
from lightning_chex.attribution.controls import EveryPixel, PriorMap, RandomMap
from lightning_chex.attribution.expected_gradients import ExpectedGradients
from lightning_chex.attribution.feature_learning import Counting, LayerLearner
from lightning_chex.attribution.grad_cam import GradCAM
from lightning_chex.attribution.grad_cam_plus_plus import GradCAMPlusPlus
from lightning_chex.attribution.gradients import Gradient, IntegratedGradients
from lightning_chex.attribution.iba import IBA, InverseIBA
from lightning_chex.attribution.input_iba import InputIBA
from lightning_chex.attribution.layers import LayerError, NotFiniteError
from lightning_chex.attribution.lrp import LRP
from lightning_chex.attribution.multi_layer import MultiLayerIBA
from lightning_chex.attribution.objectives import OBJECTIVES
from lightning_chex.attribution.shared_iba import SharedIBA
from lightning_chex.attribution.sharing import shared_features
from lightning_chex.attribution.smooth_grad import SmoothGrad
from lightning_chex.attribution.solution import BottleneckReport, bits_per_pixel
from lightning_chex.attribution.statistics import FEW_IMAGES, FeatureStatistics
from lightning_chex.attribution.targets import Targets, explained_output, positive_labels, top_classes
from lightning_chex.attribution.unwrapping import frozen
from lightning_chex.emptiness import OFTEN_EMPTY, empty_maps, empty_warning, least_bits

__all__ = [
    "FEW_IMAGES",
    "IBA",
    "LRP",
    "NOT_CONVERGED",
    "OBJECTIVES",
    "OFTEN_EMPTY",
    "Attribution",
    "Attributor",
    "Counting",
    "BottleneckReport",
    "EveryPixel",
    "ExpectedGradients",
    "FeatureStatistics",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "InputIBA",
    "IntegratedGradients",
    "InverseIBA",
    "LayerError",
    "LayerLearner",
    "MultiLayerIBA",
    "NotFiniteError",
    "PriorMap",
    "RandomMap",
    "SharedIBA",
    "SmoothGrad",
    "Targets",
    "bits_per_pixel",
    "empty_maps",
    "empty_warning",
    "explained_output",
    "frozen",
    "least_bits",
    "positive_labels",
    "shared_features",
    "top_classes",
]
