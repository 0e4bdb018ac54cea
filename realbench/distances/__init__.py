"""Distance of whole folders from photographs, by features of networks that judge nothing.

Detectors judge pictures one by one by what they learned of other generators; here a folder is
compared with photographs, and nothing else is known. Neither ensemble, reward nor realism takes it.
"""
