"""TensorFlow Lite graphs, by LiteRT (`ai-edge-litert`)."""

from activities.backends.tflite.provider import TFLiteProvider

__all__ = ["TFLiteProvider"]
