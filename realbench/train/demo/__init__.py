"""A small text-to-image model of this project's own, and its training with the project's reward.

``models/small-photo/making`` made the model from captioned photographs;
:mod:`~realbench.train.demo.run` improves it by Flow-GRPO in a few minutes.
"""
