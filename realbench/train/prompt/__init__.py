"""Training of the language model that rewrites prompts in front of an image model."""
