"""realgen-train: the scorers as a reward that trains image models and prompt-rewriting LLMs."""
