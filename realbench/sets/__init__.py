"""Named sets of pictures: cards that say where they are, and folders of files made of them."""
