"""The kit of HTML reports: one self-contained file per run, for screens, paper and phones.

Each report stands beside its subject, such as ``realbench.scoring.report``.
"""
