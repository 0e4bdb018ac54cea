"""Image quality and alignment: optional columns beside realism, never mixed into it.

A measure is no detector: its score is no P(real), it has a card of another kind (``measure.toml``)
in another place, and neither ensemble, reward nor ranking takes it.
"""
