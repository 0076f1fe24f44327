"""Saliency maps from any torch model: the information-bottleneck family, gradient methods and controls."""

from lightning_chex.attribution.attributor import NOT_CONVERGED, Attribution, Attributor
from lightning_chex.attribution.bottleneck.iba import IBA, InverseIBA
from lightning_chex.attribution.bottleneck.input import InputIBA
from lightning_chex.attribution.bottleneck.layered import LayeredAttributor, LayerLearner, layer_learners
from lightning_chex.attribution.bottleneck.multi_layer import MultiLayerIBA
from lightning_chex.attribution.bottleneck.objectives import OBJECTIVES
from lightning_chex.attribution.bottleneck.settings import BottleneckSettings
from lightning_chex.attribution.bottleneck.shared import SharedIBA
from lightning_chex.attribution.bottleneck.solution import BottleneckReport, bits_per_pixel
from lightning_chex.attribution.bottleneck.statistics import FEW_IMAGES, FeatureStatistics
from lightning_chex.attribution.controls import EveryPixel, PriorMap, RandomMap
from lightning_chex.attribution.emptiness import OFTEN_EMPTY, empty_maps, empty_warning, least_bits
from lightning_chex.attribution.fitted import FittedAttributor
from lightning_chex.attribution.gradient.expected_gradients import ExpectedGradients
from lightning_chex.attribution.gradient.grad_cam import GradCAM
from lightning_chex.attribution.gradient.grad_cam_plus_plus import GradCAMPlusPlus
from lightning_chex.attribution.gradient.gradients import Gradient, IntegratedGradients
from lightning_chex.attribution.gradient.lrp import LRP
from lightning_chex.attribution.gradient.smooth_grad import SmoothGrad
from lightning_chex.attribution.network.layers import LayerError, NotFiniteError
from lightning_chex.attribution.network.sharing import shared_features
from lightning_chex.attribution.network.unwrapping import frozen
from lightning_chex.attribution.observing import ObservedRows
from lightning_chex.attribution.targets import Targets, explained_output, positive_labels, top_classes

__all__ = [
    "FEW_IMAGES",
    "IBA",
    "LRP",
    "NOT_CONVERGED",
    "OBJECTIVES",
    "OFTEN_EMPTY",
    "Attribution",
    "Attributor",
    "BottleneckReport",
    "BottleneckSettings",
    "EveryPixel",
    "ExpectedGradients",
    "FeatureStatistics",
    "FittedAttributor",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "InputIBA",
    "IntegratedGradients",
    "InverseIBA",
    "LayerError",
    "LayerLearner",
    "LayeredAttributor",
    "MultiLayerIBA",
    "NotFiniteError",
    "ObservedRows",
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
    "layer_learners",
    "least_bits",
    "positive_labels",
    "shared_features",
    "top_classes",
]
