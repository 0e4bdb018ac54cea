"""HTTP servers on this machine: the page on which a person judges pairs."""
