"""Image folders from diffusers pipelines: a suite's prompts in, a model's folder out."""

from realbench.generation.run import GenerateOptions, Generation, Progress, generate, image_seed

__all__ = ["GenerateOptions", "Generation", "Progress", "generate", "image_seed"]
