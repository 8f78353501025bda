"""ImageNet weights for `aas.backbones.Backbone`, read from Coral's int8 TFLite file (Apache-2.0).

The file holds the convolutions in the order of the network, batch norms folded, one scale per output
channel: weight = (q - zero point) * scale.
"""

from pathlib import Path

import numpy as np
import tflite
import torch
from torch import Tensor, nn

from aas.backbones import Backbone

CONVOLUTIONS = (tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D)


def coral_tflite(data_dir: Path) -> Path:
    return data_dir / "coral" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"


def _dequantized(model: tflite.Model, tensor: tflite.Tensor) -> np.ndarray:
    dtype = {tflite.TensorType.INT8: np.int8, tflite.TensorType.INT32: np.int32}[tensor.Type()]
    q = model.Buffers(tensor.Buffer()).DataAsNumpy().view(dtype).reshape(tensor.ShapeAsNumpy()).astype(np.float64)
    quantization = tensor.Quantization()
    per_channel = [1] * q.ndim
    per_channel[quantization.QuantizedDimension()] = -1
    scale = quantization.ScaleAsNumpy().astype(np.float64).reshape(per_channel)
    zero_point = quantization.ZeroPointAsNumpy().reshape(per_channel)
    return (q - zero_point) * scale


def read_convolutions(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Weight [out, in/groups, k, k] and bias [out] of every convolution, float32, in network order.

    The last one is the classifier over 1001 labels (0 = background).
    """
    model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    convolutions = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if code not in CONVOLUTIONS:
            continue
        weight, bias = (_dequantized(model, graph.Tensors(operator.Inputs(j))) for j in (1, 2))
        # TFLite stores [out, h, w, in], and depthwise [1, h, w, channels].
        axes = (3, 0, 1, 2) if code == tflite.BuiltinOperator.DEPTHWISE_CONV_2D else (0, 3, 1, 2)
        convolutions.append((torch.from_numpy(weight.transpose(axes).copy()).float(), torch.from_numpy(bias).float()))
    return convolutions


def load_imagenet(backbone: Backbone, path: Path) -> tuple[Tensor, Tensor]:
    """Fill `backbone` in place; returns the classifier (weight [1001, 1280], bias [1001])."""
    *weights, (classifier, classifier_bias) = read_convolutions(path)
    layers = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, weights, strict=True):
            if layer.weight.shape != weight.shape:
                raise ValueError(f"{path.name} is not MobileNetV2 1.0: {tuple(weight.shape)} for {layer}")
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return classifier.flatten(1), classifier_bias
