"""What decides a model's bytes: the numbers of its config, read without torch or transformers."""

from ftcourse.shape.model_shape import REQUIRED, ModelShape, is_known, load_shape
from ftcourse.shape.parameters import Parameter, parameter_count, parameters

__all__ = ["REQUIRED", "ModelShape", "Parameter", "is_known"]
__all__ += ["load_shape", "parameter_count", "parameters"]
