"""Convolutions, pooling and Adam for PyTorch, without copies that Keras' own make there.

Pictures lie channels last in memory, as Keras has them by default. Keras' layers hand PyTorch a
copy in the order channels, rows, columns and copy what comes back: half of VGG16's time on a
processor (Keras 3.15). A view in that order, whose memory stays as it is, is what oneDNN computes
fastest on. Bias and ReLU are applied on the way, without another picture. The numbers are the same
to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

_TO_TORCH, _TO_KERAS = (0, 3, 1, 2), (0, 2, 3, 1)


@keras.saving.register_keras_serializable(package="safelight")
class ViewConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` on views; same weights and settings."""

    def call(self, inputs: Any) -> Any:
        """As that of Conv2D."""
        from torch.nn import functional

        kernel = ops.convert_to_tensor(self.kernel).permute(3, 2, 0, 1)
        y = functional.conv2d(
            inputs.permute(_TO_TORCH),
            kernel,
            ops.convert_to_tensor(self.bias) if self.use_bias else None,
            stride=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=self.groups,
        )
        if self.activation is keras.activations.relu:
            # In place: the gradients of a convolution do not need what it gave.
            return functional.relu_(y).permute(_TO_KERAS)
        return self.activation(y.permute(_TO_KERAS))


@keras.saving.register_keras_serializable(package="safelight")
class ViewMaxPooling2D(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` on views."""

    def call(self, inputs: Any) -> Any:
        """As that of MaxPooling2D."""
        from torch.nn import functional

        y = functional.max_pool2d(inputs.permute(_TO_TORCH), self.pool_size, self.strides)
        return y.permute(_TO_KERAS)


def stand_in(layer: keras.layers.Layer) -> type[keras.layers.Layer] | None:
    """The class that computes a layer's numbers on views; `None` where its own has to.

    Args:
        layer: Of a model that is copied. PyTorch pads evenly on both sides: with strides Keras'
            `same` is another.
    """
    if getattr(layer, "data_format", None) != "channels_last":
        return None
    if type(layer) is keras.layers.Conv2D:
        odd = all(side % 2 == 1 for side in layer.kernel_size)
        even_padding = layer.padding == "same" and layer.strides == (1, 1) and odd
        return ViewConv2D if even_padding or layer.padding == "valid" else None
    if type(layer) is keras.layers.MaxPooling2D and layer.padding == "valid":
        return ViewMaxPooling2D
    return None


def arrange(variables: Sequence[keras.Variable]) -> None:
    """Lays kernels of convolutions, and what an optimizer keeps of them, as PyTorch wants them.

    Their shape and numbers stay; in memory filters come first and channels last, so that the view
    PyTorch gets needs no copy in any step.

    Args:
        variables: On PyTorch; those without four axes are left alone.
    """
    for variable in variables:
        if len(variable.shape) == 4:
            tensor = variable.value
            tensor.data = tensor.data.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)


class InPlaceAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` in half as many walks through memory; the same numbers to rounding.

    Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1 in the order of its section 2's end, as Keras
    has it.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        place, step = self._get_variable_index(variable), int(self.iterations) + 1
        mean, square = self._momentums[place].value, self._velocities[place].value
        size = float(learning_rate) * (1 - self.beta_2**step) ** 0.5 / (1 - self.beta_1**step)
        mean.lerp_(gradient, 1 - self.beta_1)
        square.mul_(self.beta_2).addcmul_(gradient, gradient, value=1 - self.beta_2)
        variable.value.addcdiv_(mean, square.sqrt().add_(self.epsilon), value=-size)
