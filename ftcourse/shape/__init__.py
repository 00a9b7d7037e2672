"""What decides a model's bytes: the numbers of its config, read without torch or transformers."""

from ftcourse.shape.model_shape import ModelShape, is_known, load_shape
from ftcourse.shape.parameters import parameter_count

__all__ = ["ModelShape", "is_known", "load_shape", "parameter_count"]
