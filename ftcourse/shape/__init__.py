"""What decides a model's bytes: the numbers of its config, read without torch or transformers."""

from ftcourse.shape.model_shape import ModelShape, is_known, load_shape
from ftcourse.shape.parameters import Parameter, parameter_count, parameters

__all__ = ["ModelShape", "Parameter", "is_known", "load_shape", "parameter_count", "parameters"]
